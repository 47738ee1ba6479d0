"""The bridge to Flax Linen: Linen modules in modules of the stand-in, and the other way round.

- `boxes.py`: one variable of Linen, with its box of metadata, as a Variable, and back.
- `to_module.py`: `ToNNX`, a module that holds the variables of a Linen module, and `lazy_init`, which creates them.
- `to_linen.py`: `ToLinen`, a Linen module that creates a module in each call, with Linen's variables as its values.
- `functional.py`: `functional`, the `init` and `apply` of a class of modules.

`liftnn.compat.nnx.bridge` exports them. They import Flax, so they are loaded at first use.
"""
