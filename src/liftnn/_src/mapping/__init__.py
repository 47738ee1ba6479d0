"""Mapped functions: `vmap`, `pmap` and `shard_map`.

`mapped.py` has what the three share: each dynamic leaf gets a prefix, JAX's transform is applied to a function of the
flat leaves, and results are grouped by prefix. `vmap.py`, `pmap.py` and `shard_map.py` add how JAX is called.

- `reductions.py`: writes to shared Variables, reduced over the mapped axis; `batch_keys.py`: random keys for each
  element.
- `axis_metadata.py`: the names of axes in the metadata of Variables follow the mapped axis.
- `axis_errors.py`, `spec_errors.py`: if JAX rejects the axes or specs, find the Variable by attribute path.
"""
