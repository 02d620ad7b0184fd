"""Speech as numbers: waveforms, log-mel spectra, mel-cepstra, and how to disturb them for training."""
