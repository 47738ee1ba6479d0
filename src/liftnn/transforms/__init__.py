"""The transforms: each is its JAX function, and where the updates travel."""
