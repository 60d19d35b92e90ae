"""What keeps a run alive: checkpoints, locks, logs, signals, many processes."""
