"""From shards to batches: plan of an epoch, cache, decoding, readers."""
