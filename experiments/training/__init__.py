"""The trainer: a pure step, and a loop around it that survives being stopped."""
