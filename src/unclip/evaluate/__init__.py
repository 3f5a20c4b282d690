"""Evaluation of a model: captions followed, retrieval, distances between sets of pictures, memorisation, ablations."""
