"""Work that can stop at any time and go on: finished pieces on disk, and who computes."""
