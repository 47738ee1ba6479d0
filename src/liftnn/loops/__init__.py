"""Loops and branches: what is handed from step to step, and what branches must agree on."""
