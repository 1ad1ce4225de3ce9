"""Images through a model, batch by batch, in this process or by workers."""
