"""Captured modules: the search through closures, globals and objects, and the guards on what it has met."""
