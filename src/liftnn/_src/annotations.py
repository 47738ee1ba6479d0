"""Annotations and signatures, without an error for an annotation that names what does not exist (yet).

From Python 3.14 on, annotations are evaluated when they are read. They may name what only a type checker imports.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

_IS_LATE = sys.version_info >= (3, 14)
_FORMAT: Any = importlib.import_module("annotationlib").Format.FORWARDREF if _IS_LATE else None


def annotations_of(x: Any) -> Mapping[str, Any]:
    """Return the annotations of a class, without those of its bases, or of a function or other callable."""
    get_annotations: Any = inspect.get_annotations
    return get_annotations(x, format=_FORMAT) if _IS_LATE else get_annotations(x)


def signature_of(function: Any) -> inspect.Signature:
    """Return the signature of a callable.

    Args:
      function: The callable.

    Returns:
      The signature.

    Raises:
      TypeError: If the object is not callable.
      ValueError: If the callable has no signature, as some built-in functions.
    """
    signature: Any = inspect.signature
    return signature(function, annotation_format=_FORMAT) if _IS_LATE else signature(function)
