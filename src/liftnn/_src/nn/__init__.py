"""Layers, and what they are made of: initializers, activations, pooling, dtypes."""
