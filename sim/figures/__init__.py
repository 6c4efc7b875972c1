"""Drawing the figures of a run."""
