"""Axes and shardings: prefixes of the arguments, spread over the Variables and arrays that they reach."""
