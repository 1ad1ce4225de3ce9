"""Parts brought to one place: where each image's part lies, and the image moved back."""
