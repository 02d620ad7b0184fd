"""The search for the likeliest output of a trained model."""
