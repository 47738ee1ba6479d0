"""Modules, and the functions on modules outside of transforms: update, pop, clone, iterate, pickle.

- `module.py`: `Module`, the base class; `rendering.py`: its repr; `raw_jax.py`: the error for a module in raw JAX;
  `jax_trees.py`: classes whose instances are pytrees; `variables_view.py`: `module.variables`; `abstract.py`: the error
  of a call of a module without values.
- `update.py`: `update`; `verbs.py`: `pop`, `find_shared`, `replace_all`; `children.py`: find and set what an object
  holds; `iterate.py`: `iter_graph`, `iter_modules`, `iter_children`; `recording.py`: `sow` and `perturb`.
- `mistaken.py`: warnings of assignments that have another effect than they seem to have.
- `copies.py`: `clone`, `view`, `with_attributes`; `recursive_map.py`: a copy with replacements.
- `layer_calls.py`: the wrapper of `__call__` of layers, with a named scope in traces; `layer_notes.py`: the note of an
  exception that names the layer that raised it.
- `methods.py`: the methods of a class, and subclasses that record calls, for `capture` and `tabulate`.
- `parts.py`: the modules that a module reaches, remembered for `train()` and `eval()`.
- `pickling.py` and `portable.py`: pickle and deepcopy; functions are pickled by factory and arguments, or by name.
"""
