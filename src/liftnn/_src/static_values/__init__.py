"""Static values: attributes that are part of the cache key and are not traced.

A compiled function is reused if its static values are interchangeable with those it was traced with. `==` does not
say that: `1 == True`, lists are not hashable, and `optax.adam(1e-3)` returns new closures each time. So a static
value is wrapped in `Static`, whose key is made of type and content.

- `static.py`: `Static` and its key; `Snapshot` for values that can change in place.
- `content.py`: flattens a value into its key, without recursion, and recognizes shared parts and cycles.
- `object_content.py`: what plain objects hold, which can change while they stay the same objects.
- `value_types.py`: which classes are compared by content, by code, or by identity.
"""
