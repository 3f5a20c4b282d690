"""Tokenizers: text to integer tokens."""
