"""Longer measurements: comparisons, searches, codecs without a channel, repair."""
