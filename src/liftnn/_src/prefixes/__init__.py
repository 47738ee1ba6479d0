"""Prefixes: the axis, sharding or spec of each dynamic leaf, from a tree prefix of the arguments.

- `prefix.py`: tree prefixes, and the ones that choose by filter: `StateAxes`, `StateSharding`.
- `spread.py` spreads a prefix over all that an argument reaches, and over the result of a call. Two different
  prefixes of one Variable are an AliasingError.
- `groups.py` returns a result in one list for each prefix, since JAX wants output axes before the function has run.
"""
