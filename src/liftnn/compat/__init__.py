"""Stand-ins for other libraries: `from liftnn.compat import nnx` in place of `from flax import nnx`."""
