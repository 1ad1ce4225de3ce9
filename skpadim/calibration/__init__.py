"""Scores of good images to thresholds and p-values. Knows no images and no networks."""
