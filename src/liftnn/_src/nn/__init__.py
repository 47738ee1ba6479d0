"""Layers: one file for each, and what they share: arguments, dtypes, windows, moments, initializers, and so on."""
