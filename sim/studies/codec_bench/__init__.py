"""`sim codec bench` and `bits`: codecs side by side, without a channel."""
