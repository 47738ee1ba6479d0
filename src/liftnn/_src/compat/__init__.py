"""The conventions of Flax NNX, each a few lines over liftnn's own functions; `liftnn.compat.nnx` exports them.

- `splitting.py`: `split` with the GraphDef first, `state` and `merge` with the modules' own Variables, `call`.
- `graph.py`: `clone`, `pop`, `map`, `find_duplicates`, `set_metadata`, `flatten` and their kin;
  `graph_state.py`: a State that knows its structure.
- `flat_state.py`, `states.py` and `traversals.py`: States by path, as plain values, split and merged; nested mappings.
- `containers.py`: `List` and `Dict`; `annotations.py`: `data`, `static`, `dataclass`.
- `iterate.py`: iteration in the order of Flax; `copies.py`: copies with other settings; `rngs.py`: `with_rngs`;
  `recurrent.py`: `flip_sequences`.
- `modes.py`: settings and arguments that change nothing; `transforms.py` and `gradients.py`: the transforms with
  these arguments.
- `training.py`: `TrainState`, `ModelAndOptimizer`; `sharding.py`: declared shardings and abstract models.
- `path_filters.py`: filters by part of a path; `variable_names.py`: names of types of Variables.
- `tabulate.py`: a table of a model; `unsupported.py`: the names that raise, and why.
"""
