"""The compiled programs of a function, shared by all wrappers of the function that one line of code creates."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from liftnn._src.compilation.donation import find_kept
from liftnn._src.compilation.program import Program
from liftnn._src.graph.description import GraphSpec
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.kept import WeakCache, WeakFunction
from liftnn._src.lifting.offers import find_offer
from liftnn._src.lifting.signature import Selected
from liftnn._src.prefixes.prefix import as_prefixes
from liftnn._src.tracebacks import users_line

Wrap = Callable[[Plan, PureFunction, bool], PureFunction]
"""Applies another transform below the compilation: takes the plan, the pure function, and whether argument 0 is the
module of a bound method."""


class Compilation:
    """The options and compiled programs of a function.

    All `jit` wrappers of the same function that one line of code creates share it, so a function that is wrapped in a
    loop is traced once, and so is a method that each module of a class wraps; see `shared_compilation`.

    Args:
      f: The function, referred to weakly; of a partial or bound method, the function inside.
      name: The name of the compiled programs.
      shardings: `in_shardings` and `out_shardings`.
      options: Options of `jax.jit`.
      donate_written: Whether to donate the buffers of the Variables that the call overwrites.
      wrap: Applies another transform below the compilation.
      first: The position of the first argument that `in_shardings` counts.
    """

    donate: Selected
    has_leading: bool

    def __init__(
        self,
        f: Callable[..., Any],
        name: str,
        shardings: Any,
        options: Mapping[str, Any] | None,
        donate_written: bool,
        wrap: Wrap | None,
        first: int,
    ):
        self.is_traced = False
        self.bound: dict[GraphSpec, tuple[Plan, Program]] = {}
        self._function = WeakFunction(f)
        self._name = name
        self._shardings = tuple(map(as_prefixes, shardings))
        self._options = dict(options or {})
        self._donate_written = donate_written
        self._wrap = wrap
        self._first = first

    def _donated_leaves(self, plan: Plan) -> list[int]:
        """Return the leaves of the donated arguments."""
        positional, named = plan.arguments
        donated = [positional[i] for i in sorted(self.donate.positions(len(positional)))]
        donated += [argument for name, argument in named.items() if name in self.donate.names]
        return [leaf for argument in donated for leaf in argument.leaves]

    def returned(self, plan: Plan) -> list[bool] | None:
        """Return for each node whether it is returned even if unchanged, because it was donated."""
        if not self.donate:
            return None
        donated = plan.reach(self._donated_leaves(plan)).keys() - find_kept(plan)
        return [number in donated for number in range(len(plan.graph.specs))]

    def bind(self, plan: Plan, pure: PureFunction) -> Program:
        """Make the program for a structure of the arguments."""
        if self._wrap is not None:
            pure = self._wrap(plan, pure, self.has_leading)
        move = getattr(pure, "move", None)

        def counted(leaves: Sequence[Any]) -> Result:
            program, compilation = weak_program(), weak_compilation()
            if program is not None and program.is_abstract:
                return pure(leaves)
            offer = find_offer(plan)
            assert offer is not None, "every call makes an offer"
            with offer.tracing(program, plan, leaves):
                result = pure(leaves)
            if compilation is not None:
                compilation.is_traced = True
            return result

        counted.__wrapped__ = self._function  # pyright: ignore[reportFunctionMemberAccess]  # as by functools.wraps
        counted.__name__ = counted.__qualname__ = self._name
        donated = self._donated_leaves(plan)
        options = self._shardings, self._options, self._donate_written
        program = Program(plan, counted, donated, *options, move=move, first=self._first)
        # The program holds `counted`, so references back would keep constants until the garbage collector runs.
        weak_program, weak_compilation = weakref.ref(program), weakref.ref(self)
        return program


_compilations = WeakCache(most=64)
"""Options may never repeat, for example a new sharding in each call, so the number of entries is limited."""
_of_methods = WeakCache()
"""By the function inside, what still exists of the entries for partials, bound methods and modules."""


def shared_compilation(
    f: Callable[..., Any], called: Callable[..., Any], options: Hashable, make: Callable[[], Compilation]
) -> Compilation:
    """Return the compilation that the wrappers of a function share; make it for the first one.

    A wrapper of a plain function that another line of code creates has one of its own.

    A compilation lives as long as the function, the partial, or the module of a bound method. While it lives, the same
    function in another partial, or of another module, finds it. So a copy of a module, for example inside a transform,
    does not compile its methods again.

    Args:
      f: The function, partial, bound method or module that is wrapped.
      called: The function inside if it is one of the latter three, else `f`.
      options: The options, and what else sets wrappers of one function apart.
      make: Makes the compilation.

    Returns:
      The compilation.
    """

    def of_any_module() -> Compilation:
        try:
            hash(options)
        except TypeError:
            return make()
        existing = _of_methods.get(called, None, weakref.WeakValueDictionary[Hashable, Compilation])
        found = existing.get(options)
        return existing.setdefault(options, make()) if found is None else found

    return _compilations.get(f, (users_line(), options), make if called is f else of_any_module)
