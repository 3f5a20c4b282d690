"""Data sets: readers for folders and tar shards, the built-in artwork set, sample order, decoded caches."""
