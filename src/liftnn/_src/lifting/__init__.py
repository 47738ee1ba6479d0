"""The engine: makes a JAX transform accept functions of modules.

`lift` flattens the arguments of a call, looks up or binds the transform for their structure, calls it with the
dynamic leaves, and commits the result to the live objects. All transforms go through it; it knows none of them.

- `contract.py`: what a transform sees: `Plan`, pure function, `Result`.
- `arguments.py` flattens arguments and captured modules; `callables.py` unwraps methods, modules and partials;
  `signature.py` and `static_arguments.py`: options that name arguments.
- `purify.py` makes a user's function a pure function: merge, call, find the changes. `leaks.py` and `unchanged.py`
  raise if it leaks a tracer, or changes a captured object in a way that cannot be propagated; `stored.py` if it stores
  a module there. `after.py`: structure and names after the call. `auxiliary.py`: the second output of `has_aux=True`.
  `values.py`: values of Variables with leaves that JAX cannot take.
- `lift.py`: `lift`, `Lifted`, the flatten-call-commit cycle. `call.py`: one call, and the commit of its result.
  `names.py`: name and docstring of a transformed function; `shown.py`: those of a pure function in JAX's messages.
- `offers.py`: what a call passes to the traces that it starts.
- `array_calls.py` and `kept.py`: calls without modules use JAX's transform on the user's function, and share its
  caches. `rejections.py` and `valueless.py`: the errors of calls that JAX rejects.
- `configure.py`: decorators that give a transform its types.
"""
