"""Stream images through lossy channels: scenarios, protocol, drivers, results, command line."""

__version__ = "0.1.0"
