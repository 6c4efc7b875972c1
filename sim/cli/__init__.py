"""The command line: a file per command group parses, calls and prints."""
