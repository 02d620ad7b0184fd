"""Benchmarks of our recurrent layers beside other libraries': the same function of the same weights."""
