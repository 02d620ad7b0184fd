"""Runs any config: configuration, run folder, training loop, checkpoints."""
