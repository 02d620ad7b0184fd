"""Data sets: their registry and download, fingerprints, and batches."""
