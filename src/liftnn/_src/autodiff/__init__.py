"""Derivatives: `grad`, `jvp`, `vjp` and the like, custom rules, and which leaves are differentiated."""
