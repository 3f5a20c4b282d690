"""The public formats: one module each, with a table of keys, and the config of ours that the format's configs mean."""
