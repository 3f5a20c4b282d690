"""unclip: the complete, open DALL·E 2."""
