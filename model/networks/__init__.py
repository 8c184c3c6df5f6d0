"""The networks and losses of Latent Pattern Sensing."""
