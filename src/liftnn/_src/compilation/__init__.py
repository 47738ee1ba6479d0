"""Compiled functions: `jit`, its stages and exports, and the other views of a traced function.

Three layers make a call fast. `jax.jit` compiles a *program* for each structure of the arguments (`program.py`,
`calling_convention.py`, `donation.py`, `compact.py`). A *fast path* makes a repeated call with the same modules
without flattening them (`fast_path.py`; `fast_paths.py` finds it). Its code is generated (`generate.py`,
`conditions.py`, `source.py`).

- `jit.py`: the transform; `jitted.py`: the compiled function; `programs.py`: options and programs of one function.
- `trace_once.py`: repeated blocks share one trace and one compiled function.
- `jit_options.py`: options that JAX checks when a function is wrapped.
- `patterns.py`, `dependencies.py`, `patrol.py`: how a fast path recognizes its arguments, and what it depends on.
- `write_back.py`: how a fast path writes the results into the modules.
- `kept_shardings.py`: what a program writes keeps its sharding; `moved.py`: arguments that `pmap` moves.
- `array_path.py`: the fast path of a call without modules.
- `retraces.py`: why a function is traced again, by attribute path.
- `export.py`, `exported.py`: exported functions; `by_name.py` and `plain.py`: how their structure is compared
  in another process, and written as data.
- `stages.py` (`trace`, `lower`, `compile`), `constants.py`, `jaxpr.py`, `shape.py`, `checkify.py`.
"""
