"""RESULTS.md and its plots, made from the raw records in experiments/results/."""
