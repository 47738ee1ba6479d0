"""Names of PyTorch, Keras, Flax, Haiku, Equinox and JAX that liftnn lacks: their errors say what to write instead.

Nothing here changes which names an object has: `hasattr` is False for a foreign name, `dir` leaves it out, and type
checkers report it. Only code that looks into the class finds the descriptors: `dir` of a class,
`inspect.getattr_static`, and `isinstance` with a Protocol of methods. The tables are loaded when an error
is raised, and not before.

- `pytorch.py`, `keras.py`, `flax.py`, `haiku.py`, `equinox.py`, `jax.py`: names of packages, and what to write in
  liftnn. A name of several libraries is in the table of the one that its row names first.
- `elsewhere.py`: names that JAX, optax or `liftnn.initializers` has, so that they need no row.
- `objects.py`, `arguments.py`: the same for attributes of objects, and for arguments.
- `sentences.py`: what several rows say.
- `table.py`: all rows, and each by its name.
- `explain.py`: the errors for unknown names and attributes, and for calls with unknown arguments.
- `attributes.py`: the descriptors that make an absent attribute of a module such an error.
"""
