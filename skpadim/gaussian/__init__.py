"""A Gaussian at each patch position: moments, distances, leave-one-out. Knows no images."""
