"""Training: one loop for every stage, one small objective a stage."""
