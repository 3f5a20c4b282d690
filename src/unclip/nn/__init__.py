"""Layers: attention, transformers, residual blocks, embeddings, resampling, norms. Pure torch."""
