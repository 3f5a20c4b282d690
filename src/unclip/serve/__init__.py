"""The image server: a durable queue in a database, workers that draw, and HTTP routes (extra `unclip[serve]`)."""
