"""Small Flax NNX modules around the recurrent layers of `gru_jax.nnx`."""
