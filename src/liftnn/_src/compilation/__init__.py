"""Compiled functions: `jit`, its fast path, and what else looks at a traced function: stages, export, jaxpr, shapes."""
