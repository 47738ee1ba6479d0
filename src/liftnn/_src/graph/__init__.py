"""The object graph: its static description, and how it is flattened, unflattened and updated in place.

A graph is a flat tuple of numbered nodes. Each node lists its children as edges: another node, an array leaf, or a
static value. The verbs come in pairs:

- `walk.py` flattens live objects into a `GraphSpec` (`description.py`); `merge.py` unflattens a `GraphSpec` into new
  objects.
- `rewalk.py` finds what a function has changed, a `GraphDelta`; `commit` in `merge.py` applies it to the live
  objects, completely or not at all (`undo.py`). Frozen nodes are built after what they hold (`build_order.py`).
- `kinds.py` says how each kind of node is flattened and unflattened: modules, Variables, lists, dicts, sets,
  dataclasses, pytrees, functions, transformed functions (`containers.py`, `attributes.py`, `closures.py`,
  `recipes.py`).
- `slots.py`: a `Slot` is the address of one dynamic leaf, the same before a call and after it.
- `graphdef.py`: `split`, `merge`, `state` and the public `GraphDef`; `views.py`: structures and their differences as
  text.
- `value_sharing.py`: raises if two Variables hold one container that can change in place.
- `hidden.py`: warns of modules inside static objects.
- `checks.py`: checks by identity that a container or an attribute is as it was.
"""
