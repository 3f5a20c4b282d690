"""Reading data sets: folders, tar shards and procedural shapes; sample order, decoded caches, degradation."""
