"""Experiments on real data, run from config files. They import only the public API of `gru_jax`."""
