"""Experiments on real data, run from config files; they use `gru_jax` as an outsider would."""
