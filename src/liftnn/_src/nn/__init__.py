"""Layers: one file for each kind, and what they share.

All share arguments, dtypes, initializers and activations; convolutions and pooling share windows, normalizations share
moments, and recurrent layers share carries, sequences and orthogonal initializers.
"""
