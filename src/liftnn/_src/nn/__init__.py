"""Layers: one file for each kind, and what they share.

All share arguments, dtypes, initializers and activations; convolutions and pooling share windows, normalizations share
moments, wrappers share wrapped weights, and recurrent layers share carries, sequences and orthogonal initializers.
A stack of equal layers shows each of them by a view.
"""
