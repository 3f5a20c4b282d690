"""Data sets of any size, read as they are needed: tar shards, folders, tables and parquet, on a disk or an object store."""
