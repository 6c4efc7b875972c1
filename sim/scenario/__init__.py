"""Scenario files: their schema, reading them, sweeps, the library that ships."""
