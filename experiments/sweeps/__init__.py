"""Many runs of one experiment: a grid of settings, each with several seeds."""
