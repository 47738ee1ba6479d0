"""The conventions of Flax NNX, each a few lines over liftnn's own functions; `liftnn.compat.nnx` exports them.

- `splitting.py`: `split` with the GraphDef first, `state` and `merge` with the modules' own Variables, `call`.
- `graph.py`: `clone`, `map`, `find_duplicates`, `set_metadata`, `flatten` and their kin; `iterate.py`: iteration in
  Flax's order; `pop.py`: `pop`, which deletes; `graph_state.py`: a State that knows its structure.
- `flat_state.py`, `states.py` and `traversals.py`: States by path, as plain values, split and merged; nested mappings.
- `modules.py`: `Module`, whose instances are pytrees; `containers.py`: `List` and `Dict`; `sequential.py`: `Sequential`
  with a `List`; `annotations.py`: `data`, `static`, `dataclass`.
- `modes.py`: settings and arguments that change nothing; `transforms.py`: the transforms with these arguments;
  `derivatives.py`: `custom_vjp`, `vjp`, `jvp`; `tree_gradients.py`: derivatives in tree mode; `partials.py`: partials
  of jitted functions.
- `rngs.py`: `with_rngs`; `copies.py`: copies with other settings; `recurrent.py`: `flip_sequences`.
- `prefixes.py`: the axis of each Variable; `axis_names.py`: names of mapped axes in metadata, by a decorator.
- `training.py`: optimizers, `TrainState`; `metrics.py`: metrics; `rope.py`: rotary embedding; `sharding.py`: declared
  shardings and abstract models; `sharding_metadata.py`: the one name of a declared sharding.
- `path_filters.py`: filters by part of a path; `variable_names.py`: names of types of Variables; `identifiers.py`: ids.
- `methods.py`: methods of States and Variables that only Flax has; `keywords.py`: its names of parameters;
  `variable_metadata.py`: values with metadata; `recording.py`: `sow` and `perturb`; `abstract_methods.py`: abstract
  classes of modules; `defaults.py`: the first value that is given.
- `linen/`: the bridge to Linen, which imports Flax at first use.
- `tabulate.py`: a table of a model; `unsupported.py`: the names that raise, and why.
"""
