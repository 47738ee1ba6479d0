"""Offers: what a call passes to the traces that it starts, through JAX.

A call publishes its offer before it calls JAX. If JAX then traces the function, the trace recognizes the offer by its
subject, and takes from it the live objects behind the arrays, so captured objects are mapped to their copies.

JAX calls the function only to trace it, so a fast path hardly ever needs its offer, and publishing it would cost 1 us:
a program has just evicted thread-local variables from the processor's caches. Instead, the offer is in the globals of
the generated function that makes the call, and a trace finds that function on the stack. While a call on the slow path
runs, callbacks take no fast path, so a trace finds one or the other.
"""

from __future__ import annotations

import inspect
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
      find_objects: Returns the live objects in the arguments by number, which the trace maps to their copies. The
        default returns none.
      guards: The guards of the captured objects.
      begin: Called with what is traced when a trace begins; returns the function to call at its end. The default, None,
        means that nobody counts the traces.
      uncopied: The arguments that the function gets as they are; see `Uncopied`.
    """

    __slots__ = ("begin", "find_objects", "guards", "subject", "uncopied")

    def __init__(
        self,
        subject: Any,
        find_objects: Callable[[], Sequence[Any]] = tuple,
        guards: Any = None,
        begin: Begin | None = None,
        uncopied: Sequence[Any] = (),
    ):
        self.subject = subject
        self.find_objects = find_objects
        self.guards = guards
        self.begin = begin
        self.uncopied = uncopied

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


class FastOffer(Offer):
    """The offer of a fast path, which must be told if a trace that it started has raised."""

    __slots__ = ()

    @contextmanager
    def tracing(self, *traced: Any) -> Generator[None]:
        """Record a trace, and publish the offer to it."""
        try:
            with publish(self), super().tracing(*traced):
                yield
        except Exception:
            _current_offer.has_failed = True
            raise


_NONE = Offer(None)


class _CurrentOffer(threading.local):
    """The state of each thread."""

    offer = _NONE
    """The offer of the innermost running call on the slow path."""
    has_failed = False
    """Whether a trace that a fast path started has raised; `is_rejection` resets it."""


_current_offer = _CurrentOffer()


def is_rejection(error: Exception) -> bool:
    """Return whether the slow path may be able to make a call that has raised on the fast path.

    It may if JAX has rejected the arguments before it traced the function, or if the trace has found objects of which
    the fast path does not know.

    Args:
      error: The error.
    """
    has_failed, _current_offer.has_failed = _current_offer.has_failed, False
    return isinstance(error, frames.RetryNeeded) or (
        isinstance(error, (TypeError, ValueError)) and not has_failed
    )


@contextmanager
def publish(offer: Offer) -> Generator[None]:
    """Publish the offer of a call to the traces that the call will start.

    Args:
      offer: The offer.
    """
    before, opening = _current_offer.offer, frames.Opening()
    try:
        opening.start()
        _current_offer.offer = offer
        yield
    finally:
        _current_offer.offer = before
        opening.end()


def may_be_fast() -> bool:
    """Return whether a call of this thread may take a fast path: it is in no frame and in no call on the slow path."""
    return frames.current_frame() is frames.PLAIN and _current_offer.offer is _NONE


def offer_for(subject: Any) -> Offer | None:
    """Return the offer published for a plan or a wrapper; None if its call is over, or was made by a fast path."""
    offer = _current_offer.offer
    return offer if offer.subject is subject else None


FAST = "liftnn's offer"
"""The global of a generated function with the offer of its calls."""


def find_offer(subject: Any) -> Offer | None:
    """Return the offer for a program that is traced now; None if no call has started the trace.

    Args:
      subject: The plan, or the wrapper of the function, that is traced.
    """
    offer = offer_for(subject)
    frame = None if offer is not None else inspect.currentframe()
    while frame is not None:
        found = dict.get(frame.f_globals, FAST)  # past a subclass of dict, which may be the user's
        if found is not None:
            return found if found.subject is subject else None
        frame = frame.f_back
    return offer
