"""Predict for more pictures than one machine can look at, shard by shard."""
