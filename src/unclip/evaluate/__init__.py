"""How good a model is: captions followed, retrieval, distances between sets of pictures, memorisation, ablations."""
