"""Names of PyTorch, Keras, Flax, Haiku and Equinox that liftnn lacks: the errors for them say what to write instead.

Nothing here changes which names exist: `hasattr` is False for a foreign name, `dir` leaves it out, and type checkers
report it. The table is loaded when an error is raised, and not before.

- `table.py`: the names, and what to write in liftnn.
- `explain.py`: the errors for unknown names and attributes, and for calls with unknown arguments.
- `attributes.py`: the descriptors that make an absent attribute of a module such an error.
"""
