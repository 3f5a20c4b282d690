"""The artwork data set: drawings of five open icon sets, rasterised into tar shards with captions."""
