"""Captured modules: those that a function reaches without getting them as arguments.

A captured module is treated as one more argument. `search.py` finds it before the call, through closures, globals
that the code names, defaults, bound objects and containers, without running user code (`expand.py`,
`expand_containers.py` and `steps.py`: what one object leads to; `libraries.py`: which libraries are left out).
`shape.py`: the objects that lead to captured modules are part of the cache key.
`guards.py` checks before the next call that each step of the search still leads to the same object. `snapshots.py`:
what captured objects hold when a trace begins, to find and undo what code changes there. `missed.py`: modules that the
search misses, and that are detected when they are used. `pinned.py`: array leaves of captured modules are constants of
the trace. `plain_objects.py`: what plain objects in modules hold is compared in each call. `code_names.py`: the names
in code. `module_classes.py`: whether it may create a module.
"""
