"""numtape: a training step traced once and replayed as one plain NumPy program."""
