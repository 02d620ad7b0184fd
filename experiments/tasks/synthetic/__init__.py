"""Generated long-memory problems."""
