"""Whether two object graphs are alike, decided in plain Python and without any part of liftnn's walk."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import types
import weakref

import jax
import numpy as np

import liftnn


def find_difference(a, b, values=True, array_types=True, tolerance=0.0):
    """Where two object graphs first differ: a path and two texts, or None if there is a one-to-one map between them.

    Args:
      a: The one.
      b: The other.
      values: Whether the numbers in arrays have to agree, or only the structure (shapes and dtypes are no structure).
      array_types: Whether an array of numpy, one of JAX, and a number in place of one differ.
      tolerance: By how much numbers in arrays may differ, absolutely and as a share; 0 means not in one bit.
    """
    strict = values and array_types
    there, back = {}, {}
    todo = [(None, a, b)]  # a path is a pair of path and key, so that it takes no copy to make it longer
    while todo:
        path, x, y = todo.pop()
        if not array_types:
            x, y = to_array_like(x, y), to_array_like(y, x)
        if type(x) is not type(y) and not (is_array(x) and is_array(y) and not strict):
            return unchain(path), type(x), type(y)
        if is_array(x):
            if values and not same_array(x, y, tolerance):
                return unchain(path), x, y
            continue
        parts = open_object(x), open_object(y)
        if parts[0] is None:
            if not same_static(x, y):
                return unchain(path), x, y
            continue
        if is_static(x) and is_static(y):
            pass  # a frozen container of static values has no identity
        elif (id(x) in there) != (id(y) in back) or there.get(id(x), y) is not y:
            return unchain(path), "shared", "not shared, or shared with another"
        elif id(x) in there:
            continue
        else:
            there[id(x)] = y
            back[id(y)] = x
        names = [[(type(k), k, repr(k)) for k, _ in part] for part in parts]  # 0.0 == -0.0, (1,) == (True,)
        if names[0] != names[1]:
            return unchain(path), *names
        if isinstance(x, collections.deque) and x.maxlen != y.maxlen:
            return unchain(path), x.maxlen, y.maxlen
        todo += [((path, k), u, v) for (k, u), (_, v) in zip(*parts, strict=True)][::-1]
    return None


def unchain(path):
    """A path as a tuple of keys."""
    keys = []
    while path is not None:
        path, key = path
        keys.append(key)
    return tuple(reversed(keys))


def is_array(x):
    return isinstance(x, (jax.Array, np.ndarray))


def to_array_like(x, other):
    """A number as an array, if the other one is an array; anything else as it is."""
    return jax.numpy.asarray(x) if isinstance(x, (bool, int, float, complex)) and is_array(other) else x


def open_object(x):
    """Names and children of a compound object, None of anything else."""
    if isinstance(x, liftnn.Variable):
        return [("raw_value", x.raw_value), *x.get_metadata().items()]
    if isinstance(x, liftnn.Module) or (dataclasses.is_dataclass(x) and not isinstance(x, type)):
        classes = [cls for cls in type(x).__mro__[::-1] if cls.__module__.partition(".")[0] != "liftnn"]
        slots = [n for cls in classes for n in cls.__dict__.get("__slots__", ())]
        own = [n for n in slots if n not in ("__dict__", "__weakref__") and hasattr(x, n)]
        return [(n, getattr(x, n)) for n in own] + list(attributes(x).items())
    if isinstance(x, types.SimpleNamespace):
        return list(vars(x).items())
    if isinstance(x, dict):
        return list(x.items())
    if isinstance(x, set):
        return list(enumerate(sorted(x, key=lambda y: (type(y).__name__, repr(y)))))
    if type(x) is weakref.ref and isinstance(x(), liftnn.Module | liftnn.Variable):
        return [("referent", x())]
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return list(zip(x._fields, x, strict=True))
    if isinstance(x, (list, tuple, collections.deque)):
        return list(enumerate(x))
    children, treedef = jax.tree.flatten(x, is_leaf=lambda y: y is not x)
    return (
        None
        if x is None or treedef == jax.tree.structure(0)
        else [("treedef", treedef), *enumerate(children)]
    )


def attributes(x):
    """The dictionary of an object's attributes, past `__dict__`, by which liftnn would notice that somebody looks."""
    found = (vars(cls).get("__dict__") for cls in type(x).__mro__)
    descriptor = next((d for d in found if type(d) is types.GetSetDescriptorType), None)
    return {} if descriptor is None else descriptor.__get__(x)


def is_static(x):
    """Whether a value is immutable all the way down, so that which copy of it one holds makes no difference."""
    if isinstance(x, tuple):
        return all(map(is_static, x))
    return open_object(x) is None and not is_array(x)


def same_array(x, y, tolerance=0.0):
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    x, y = np.asarray(x), np.asarray(y)
    if x.tobytes() == y.tobytes() or not tolerance:
        return x.tobytes() == y.tobytes()
    x, y = (a.astype(np.float32) if a.dtype == jax.numpy.bfloat16 else a for a in (x, y))
    return np.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)


def same_static(x, y):
    """Interchangeable: equal, of one type, and of one sign if zero; functions that do the same with the same."""
    if isinstance(x, (float, complex, range, decimal.Decimal)):
        return repr(x) == repr(y)
    if type(x) is weakref.ref and x() is None:
        return y() is None
    if isinstance(x, types.FunctionType) and x is not y:
        return x.__code__ == y.__code__ and find_difference(held_by(x), held_by(y)) is None
    return x is y or bool(x == y)


def held_by(function):
    """The defaults and the contents of the cells of a function."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__defaults__, function.__kwdefaults__, cells]


def has_tracer(x):
    """Whether an object graph holds a tracer anywhere."""
    seen, todo = {}, [x]
    while todo:
        x = todo.pop()
        if isinstance(x, jax.core.Tracer):
            return True
        if id(x) not in seen:
            seen[id(x)] = x
            todo += [part for _, part in open_object(x) or ()]
    return False
