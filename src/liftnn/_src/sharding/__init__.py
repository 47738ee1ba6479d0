"""Declared shardings: from the names in the metadata of Variables to models on a mesh.

The metadata `sharding`, `out_sharding` or `sharding_names` of a Variable have a name, a tuple of names, or None for
each axis of its array. The names are mesh axes, or logical axes (`"embed"`, `"heads"`) that rules map to mesh axes. A
Variable may have rules of its own in the metadata `sharding_rules`, and a mesh in `mesh`. The layer `variables` places
what is created; this folder has the functions on whole models.

- `declared.py`: `with_partitioning`, `get_partition_spec` and `get_named_sharding`.
- `constraint.py`: `with_logical_constraint`, for activations.
- `on_mesh.py`: `make_sharded` and `abstract`, models created on a mesh or described for it.
- `device_put.py`: `device_put`, modules moved to a device or a sharding.
- `replicas.py`: `check_replicas`, whether all processes hold the same model.
- `agreement.py`: all processes go on, or all raise. `descriptions.py`: the texts that they compare.
"""
