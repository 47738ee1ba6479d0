"""Mapped functions: `vmap`, `pmap` and `shard_map`."""
