"""Benchmarks of our recurrent layers against other libraries: the same function with the same weights."""
