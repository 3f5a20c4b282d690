"""Training: one loop for all stages; a task and its batches for each."""
