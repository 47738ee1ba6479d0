"""Compiled programs: how `jit` makes them, and calls them again without a walk."""
