"""`sim run`: a scenario's cells, streamed, repaired, measured and summed up."""
