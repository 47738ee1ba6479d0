"""Offers: what a call passes to the traces that it starts, through JAX.

A call publishes its offer before it calls JAX. If JAX then traces the function, the trace recognizes the offer by its
subject, and takes from it the live objects behind the arrays, so captured objects are mapped to their copies. JAX calls
the function only to trace it, so a call on the fast path publishes an offer too, although it hardly ever needs one: it
stores a weak reference, which costs 60 ns and keeps nothing alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from liftnn._src.variables import frames

Begin = Callable[..., Callable[[], None]]
"""Called with what is traced when a trace begins; returns the function to call at its end."""


class Offer:
    """What a call passes to the traces that it starts.

    Args:
      subject: The plan, or the wrapper of the function, that the call may trace.
      objects: The live objects in the arguments by number, which the trace maps to their copies.
      guards: The guards of the captured objects.
      begin: Called with what is traced when a trace begins; returns the function to call at its end. The default, None,
        means that nobody counts the traces.
    """

    __slots__ = ("__weakref__", "begin", "guards", "objects", "subject")

    def __init__(
        self,
        subject: Any,
        objects: Sequence[Any] = (),
        guards: Any = None,
        begin: Begin | None = None,
    ):
        self.subject = subject
        self.objects = objects
        self.guards = guards
        self.begin = begin

    @contextmanager
    def tracing(self, *traced: Any) -> Generator[None]:
        """Record a trace.

        Args:
          *traced: What is traced.
        """
        end = None if self.begin is None else self.begin(*traced)
        yield
        if end is not None:
            end()

    def __call__(self) -> Offer:
        """Return the offer, as a weak reference to an offer does."""
        return self


class FastOffer(Offer):
    """The offer of a fast path, which must be told if a trace that it started has raised.

    Args:
      subject: The plan, or the wrapper of the function, that the calls may trace.
      guards: The guards of the captured objects.
      begin: Called with what is traced when a trace begins; returns the function to call at its end.
      find_objects: Returns the live objects in the arguments by number.
    """

    __slots__ = ("_find_objects",)

    def __init__(
        self,
        subject: Any,
        guards: Any,
        begin: Begin,
        find_objects: Callable[[], Sequence[Any]] = tuple,
    ):
        self.subject = subject
        self.guards = guards
        self.begin = begin
        self._find_objects = find_objects

    @property
    def objects(self) -> Sequence[Any]:
        """The live objects in the arguments by number."""
        return self._find_objects()

    @contextmanager
    def tracing(self, *traced: Any) -> Generator[None]:
        """Record a trace."""
        try:
            with super().tracing(*traced):
                yield
        except Exception:
            current.has_failed = True
            raise


class _Current(threading.local):
    """The state of each thread."""

    offer: Callable[[], Offer | None] = Offer(None)
    """The offer of the last call, or a weak reference to it."""
    has_failed = False
    """Whether a trace that a fast path started has raised; `is_rejection` resets it."""


current = _Current()


def is_rejection(error: Exception) -> bool:
    """Return whether the slow path may be able to make a call that has raised on the fast path.

    It may if JAX has rejected the arguments before it traced the function, or if the trace has found objects of which
    the fast path does not know.

    Args:
      error: The error.
    """
    has_failed, current.has_failed = current.has_failed, False
    return isinstance(error, frames.RetryNeeded) or (
        isinstance(error, (TypeError, ValueError)) and not has_failed
    )


@contextmanager
def publish(offer: Offer) -> Generator[None]:
    """Publish the offer of a call to the traces that the call will start.

    Args:
      offer: The offer.
    """
    before = current.offer
    current.offer = offer
    try:
        yield
    finally:
        current.offer = before


def offer_for(subject: Any) -> Offer | None:
    """Return the offer of the running call for a plan or a wrapper; None if that call is over."""
    offer = current.offer()
    return offer if offer is not None and offer.subject is subject else None
