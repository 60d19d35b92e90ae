"""Devices, processes, checkpoints, locks, logs and signals of a run."""
