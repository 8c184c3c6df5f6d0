"""Video to aligned face clips to shards, on Ray."""
