"""Modules, and what is done with them outside of transforms."""
