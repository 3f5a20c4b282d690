"""The stages: one module each, with its run config, its data and its losses. `train/registry.py` lists them."""
