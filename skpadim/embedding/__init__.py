"""Images to patch embeddings: the transformer, and the cache of feature maps."""
