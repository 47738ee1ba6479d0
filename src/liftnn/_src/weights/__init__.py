"""Weights in files, and those of other libraries.

A module is a list of entries, its arrays by name; weights are a source, tensors by name. An `Origin` says from which
tensors an entry comes, and the steps between the two layouts, which can be reversed. So loading is the same for each
format: find the origin of each entry, compare everything, then fill the Variables one by one.

- `functions.py`: the public functions, which load the other files at first use; `report.py`: what did not fit.
- `entries.py`: the arrays of a module; `fill.py`: comparing and filling; `load.py`: both, with rules.
- `origins.py`: parts, joins, sums and steps; `rule.py` and `rules.py`: the user's rules; `layer_names.py`:
  origins by type of layer.
- `torch.py` and `torch_layers.py`: from and to PyTorch; `jax_libraries.py`: from Flax NNX and Equinox.
- `tensor_file.py`: one safetensors file; `index.py`: several with an index; `header.py`: what liftnn adds to a file;
  `checksums.py`: checksums of tensors.
- `save.py`: from a module to files; `write_file.py`: writing one file.
"""
