"""Data files (`fetch`), the registry of data sets, and the readers of their formats."""
