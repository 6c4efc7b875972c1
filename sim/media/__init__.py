"""Images and cameras in, tokens out, and images again: where the codec meets the protocol."""
