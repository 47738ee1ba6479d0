"""Prefixes: one axis or sharding for each argument, and for each dynamic leaf below it."""
