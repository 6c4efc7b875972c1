"""A finished run on disk: its files, its manifest, and reading it again."""
