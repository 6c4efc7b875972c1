"""The two training loops and what they alone need: data, losses, schedules, checkpoints."""
