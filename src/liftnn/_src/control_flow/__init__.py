"""Loops and branches: `scan`, `while_loop`, `fori_loop`, `map`, `associative_scan`, `cond`, `switch`.

A loop must leave the structure that it found. `body.py` traces a step and finds what it carries: the leaves that a
step writes, and nothing else. `carry.py` walks the structures before and after a step in pairs, which gives for each
slot before the step the slot after it. `loop_axes.py` says what is scanned and what is shared; `slices.py` slices it,
also what is mutable. If only the first step changes the structure, it is *peeled*: made before the loop (`peel.py`).

Branches must leave the same structure. `branch_union.py` gives each the leaves that only the others write.

- `scan.py`, `loops.py` (`while_loop`, `fori_loop`), `map.py`, `associative_scan.py`, `branches.py`,
  `repeat.py`: the transforms. `kept_calls.py` compiles their calls in plain Python once.
- `functions.py`: the functions that loops and branches are given are arguments too, and are traced once.
- `uncompiled.py`: loops and branches under `jax.disable_jit`, whose steps run in plain Python.
"""
