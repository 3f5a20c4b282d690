"""Data sets that this project builds: their content, captions and metadata. The readers are in `unclip.data`."""
