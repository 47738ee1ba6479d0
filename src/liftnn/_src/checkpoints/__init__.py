"""Checkpoints: the state of a training run in a folder, and back, over Orbax.

A checkpoint has two parts. Orbax writes the arrays, as a flat dict by name. The *index*, a text file beside them, says
what each of them is: the path of its Variable, dtype and shape, ties, plain values, and the checksums of Orbax's files.
So keys keep their types, a mismatch is found before anything is read, and damage before anything is changed. Nothing is
pickled. Both parts are written into a temporary folder that is renamed when it is complete.

- `checkpoints.py`: `save`, `restore`, `saved_steps` and `Checkpoints`, which load the other files and Orbax
  at first use.
- `steps.py`: the steps in a folder, and what a step may be.
- `ranking.py`: which checkpoints are the best, and which are kept.
- `restored.py`: `Restored`, what `restore` returns.
- `orbax.py`: the packages of Orbax, and its handler that also writes the index. `failures.py`: a write that fails in
  one process raises in all of them.
- `leaves.py`: the Variables and array leaves of modules by path, with ties. `keys.py`: paths in JSON.
- `entries.py`: what the index says of one value. `plain_values.py`: values without arrays, in JSON.
- `stored.py`: arrays that Orbax cannot hold, as arrays that it can.
- `targets.py`: what an array takes over from the one that it replaces.
- `index.py`: the text of the index. `checksums.py`: checksums of files.
- `saving.py`: from modules to the two parts. `restoring.py`: from the two parts to modules. `differences.py`: what does
  not fit.
"""
