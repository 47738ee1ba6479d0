"""Optimizer and EMA: modules that follow the parameters of a model, and hold arrays for each of them.

Both get a model with each call and keep no reference to it. What they hold for a parameter is a Variable at the
parameter's path, in a tree with fixed entries: an assignment to an entry sets the value of its Variable. So the
structure of the tree never changes, and a repeated call of a compiled step need not look at it.

- `optimizer.py`: `Optimizer`, an optax transformation with its state.
- `opt_state.py`: the state of a transformation with a Variable at each leaf, and the tree that optax gets for it.
- `layout.py`: the static description of the parameters, and the trees of them that optax gets.
- `packing.py`: the choice between these trees: States, or nested lists if nothing of the user's could see them.
- `derived_sharding.py`: the sharding of what has another shape than its parameter, such as a factor.
- `fixed_entries.py`: a State and a dict whose entries stay, and whose values are set by assignment.
- `transformations.py`: what can be a transformation, what it may look at, and how one is pickled.
- `ema.py`: `EMA`, a moving average of parameters.
"""
