"""Variables, States and metadata, and the frame (the running transform) that each object belongs to.

- `variable.py`: `Variable`, which holds an array or a pytree of arrays in a *storage*; `variable_types.py`: `Param`
  and the other classes; `collection_names.py`: their names in Flax; `operators.py` and `array_attributes.py`: a
  Variable acts like its value; `variable_pytree.py`: it is a pytree.
- `metadata.py`: the metadata of a Variable; `metadata_methods.py`: its methods for them; `hooks.py`: the hooks among
  them; `class_defaults.py`: attributes of classes, which metadata replace; `mistaken_metadata.py`: attributes set by
  mistake; `annotated.py`: initializers with metadata; `holding.py`: whether an object leads to Variables or arrays.
- `state.py`: `State`, nested dicts of Variables by attribute path; `state_pytree.py`: the same as a pytree;
  `nested.py`: from nested dicts to leaves by path and back.
- `frames.py`: the stack of running transforms. Each object belongs to one; a captured object resolves to its copy.
  `owners.py`: what else an object may belong to; `retries.py`: requests to make a call again; `write_errors.py`: why
  something cannot be changed here.
- `storage.py`: where a value is stored, and the count of values that moved to other devices.
- `declared.py`: the sharding that metadata declare, and what does not fit a mesh; `axis_rules.py`: rules from declared
  names to mesh axes; `placement.py`: a new Variable is placed on the current mesh, unless `eager_sharding.py` says
  otherwise; `creation_path.py`: the path of what is being created, for messages.
- `watch.py`: a `Watch` is valid until the structure of one of its objects changes.
"""
