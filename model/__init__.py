"""Networks, losses, shard reader and trainer of Latent Pattern Sensing."""
