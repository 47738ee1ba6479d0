"""A warm call of a compiled function, from its arguments to its result, in one piece.

All of it stands in one function, and in loops rather than in calls of `zip`, `map` and comprehensions. It runs right
after a program has, which leaves little of Python in the processor's caches, and there a call, even of C, costs several
times what it costs by itself: 1.3 us for a `zip` over two arguments, where a loop that counts takes 0.5.

The comments say what each part adds to `jax.jit` over a flat list, on one core of 2026 with Python 3.11. What a call
has to have in any case, a frame of Python with `*args` and `**kwargs`, is 0.8 us.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any, Generic

from liftnn.programs.plan_cache import PlanCache
from liftnn.programs.warm import WarmPlan
from liftnn.tracebacks import hide_frames
from liftnn.trees import are_distinct
from liftnn.variables import frames
from liftnn.variables.type_variables import P, R
from liftnn.variables.variable import Cell


class WarmCalls(Generic[P, R]):
    """The calls of a compiled function: warm ones are made here, the others by `call_otherwise`."""

    plans: PlanCache
    leading: tuple[Any, ...]
    """The arguments that come before those of the call: the module of a bound method."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the compiled function."""
        try:  # costs nothing
            if frames.open_frames:
                return self.call_otherwise(args, kwargs)
            given = (*self.leading, *args, *kwargs.values()) if kwargs or self.leading else args
            plans = self.plans  # to find the plan, 0.6 us
            try:
                key = 0 if plans.position is None else id(given[plans.position])
            except IndexError:
                key = -1  # nobody's; to return from here would make this the context of other errors
            plan = plans.direct.get(key, _nobody)()
            if plan is None:
                return self.call_otherwise(args, kwargs)
            direct = plan.direct
            tokens = direct.tokens  # to know the arguments again, 0.5 us for two
            if len(given) != len(tokens) or direct.names != (tuple(kwargs) if kwargs else ()):
                return self.call_otherwise(args, kwargs)
            i = 0
            for x in given:
                if type(x) is not tokens[i] and id(x) != tokens[i]:
                    return self.call_otherwise(args, kwargs)
                i += 1
            # nothing if there are no lists or dicts; else 0.7 us, and 30 ns for each element
            if not (plan.watch.valid if plan.fixed else plan.is_current()):
                return self.call_otherwise(args, kwargs)
            if plan.jitted is None:
                return self._call_planned(plan, given, args, kwargs)
            values: list[Any] = []  # 0.4 us, and 30 ns for each Variable
            shared = False
            if plan.donates:  # 60 ns for each Variable; to compare all arrays would be 7 us for 15
                array_type = plan.array_type
                for cell in plan.cells:
                    value = cell.value
                    if type(value) is not array_type or getrefcount(value) > _HELD_ONCE:
                        shared = True  # perhaps
                    values.append(value)
            else:
                for cell in plan.cells:
                    values.append(cell.value)  # a comprehension is a call on Python 3.11
            arrays = direct.pick(given)  # 0.4 us
            if shared and not are_distinct((values, arrays)):
                return self._call_planned(plan, given, args, kwargs)
            try:
                returned = plan.jitted(values, arrays)
            except (TypeError, frames.RetraceNeeded):  # what JAX cannot take, or has not traced yet
                returned = None
            except Exception as error:
                plan.program.explain(error, values, arrays)
                raise
            if returned is None:  # not above, where JAX's error would be shown before the one that says what
                return self.call_otherwise(args, kwargs)
            how = plan.only
            if how is None or len(returned) != 2:
                return plan.close(direct.leaves_of(given), returned)
            out, parts = returned
            if parts is not None:
                if type(parts[0]) is not how.kind:
                    plan.check_plain()
                i = 0  # 30 ns for each Variable
                for cell in how.written:
                    cell.value = parts[i]
                    i += 1
            return out
        except Exception as error:
            hide_frames(error)
            raise

    def _call_planned(
        self, plan: WarmPlan, given: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A warm call that takes more than the values of Variables and the trees of arrays, or other buffers."""
        try:
            return plan.run(plan.direct.leaves_of(given))
        except (TypeError, frames.RetraceNeeded):
            pass
        return self.call_otherwise(args, kwargs)

    def call_otherwise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the compiled function in any way that it can be called."""
        raise NotImplementedError


def _count_held_once() -> int:
    """The count of references to a value that one cell holds, where a warm call counts: 3, or less in a later Python.

    A debugger that runs now may hold one more. So it is never more than 3.
    """
    made = Cell()
    made.value = object()
    for cell in [made]:
        value = cell.value
        return min(3, getrefcount(value))
    raise AssertionError


_HELD_ONCE = _count_held_once()
"""An array with no more references is in no other Variable and no argument, so its buffer can be given away."""


def _nobody() -> None:
    """A reference to no plan."""
