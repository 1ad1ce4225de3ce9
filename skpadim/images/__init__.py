"""Images and masks: every kind of X and mask, read, checked, and in batches."""
