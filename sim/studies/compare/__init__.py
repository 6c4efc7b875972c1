"""`sim compare`: strategies at equal bytes on the wire."""
