"""Where a jitted function finds its warm plans again, and who keeps them alive."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from liftnn.lifting.lift import Call, StaticArgument
from liftnn.modules.module import Module
from liftnn.programs.direct import OBJECTS, Direct, NotDirectError
from liftnn.programs.warm import UnfitError, WarmPlan
from liftnn.trees import same_tree
from liftnn.variables import frames
from liftnn.variables.static import Static


class PlanCache:
    """The plans of one jitted function, by the structure of the arguments and the identity of the modules in them.

    The first module among the arguments owns a plan; here it is referred to weakly. A plan for arguments without a
    module is owned here; it holds no object of the user's but what the function captures, which the function holds
    too. When one of the modules dies the plan is forgotten, before another object can have the same id.
    """

    __slots__ = ("__weakref__", "_owned", "direct", "plans", "position")

    def __init__(self) -> None:
        self.plans: dict[tuple[Any, ...], weakref.ref[WarmPlan]] = {}
        self.direct: dict[int, weakref.ref[WarmPlan]] = {}
        """The plans that are found by the arguments as they come: the last one for each first module, by its id, and at
        0 the last one without a module."""
        self.position: int | None = None
        """The position of the first module in the last call that was not found so, None if it had none."""
        self._owned: dict[tuple[Any, ...], WarmPlan] = {}

    def key(self, treedef: Any, leaves: Sequence[Any], has_static: bool) -> tuple[Any, ...]:
        """What tells combinations of arguments apart: their tree, the modules in it, the static arguments."""
        if has_static:
            return (treedef, *map(_token, leaves))
        return (treedef, *[id(x) if isinstance(x, OBJECTS) else 0 for x in leaves])

    def find(self, key: tuple[Any, ...]) -> WarmPlan | None:
        """The plan for a combination of arguments, if there is one and it is not out of date."""
        reference = self.plans.get(key)
        plan = None if reference is None else reference()
        return plan if plan is not None and plan.is_current() else None

    def add(
        self,
        key: tuple[Any, ...],
        given: tuple[tuple[Any, ...], dict[str, Any]] | None,
        call: Call,
        leaves: Sequence[Any],
        since: int,
    ) -> WarmPlan | None:
        """Makes a plan for a call that was walked just now.

        Args:
          key: Its key.
          given: The arguments as they came; None if there are others.
          call: The call.
          leaves: The leaves of its arguments.
          since: `changes.count` from before the walk.

        Returns:
          The plan, or None if the arguments hold something whose changes could not be seen.
        """
        graph = call.plan.graph
        roots = {i: e for i, e in enumerate(graph.edges[: len(leaves)]) if type(e) is int}
        objects = [leaves[i] for i in roots]
        children = key[0].children()
        if not same_tree(graph.treedef.children()[: len(children)], children) or not all(
            isinstance(x, OBJECTS) for x in objects
        ):
            return None
        if any(isinstance(x, OBJECTS) and x._owner is not frames.PLAIN for x in call.objects):
            return None
        if any(
            v is not call.objects[n]._value for n, v in zip(call.plan.variables, call.values, strict=True)
        ):
            return None  # a value had to be encoded: it has leaves that JAX cannot take
        try:
            plan = WarmPlan(call, len(leaves), roots, since)
        except UnfitError:
            return None
        self._keep(key, given, plan, objects)
        return plan

    def _keep(
        self,
        key: tuple[Any, ...],
        given: tuple[tuple[Any, ...], dict[str, Any]] | None,
        plan: WarmPlan,
        objects: list[Any],
    ) -> None:
        """Gives the plan to its owner, and sees to it that it ends with each of the arguments."""
        plans, direct, owned, watch = self.plans, self.direct, self._owned, plan.watch
        plan.cache = weakref.ref(self)
        addresses = {id(x) for x in objects} | {0}

        def forget(dead: Any) -> None:
            plans.pop(key, None)
            for address in addresses:
                if direct.get(address) is own:
                    del direct[address]
            owned.pop(key, None)
            watch.valid = False

        own = plan.reference = weakref.ref(plan)
        plan.references = [weakref.ref(x, forget) for x in objects]
        owner = next((x for x in objects if isinstance(x, Module)), None)
        if owner is None:
            owned[key] = plan
        else:
            alive = [p for p in owner._plans if p.watch.valid and p.cache() is not None]
            object.__setattr__(owner, "_plans", (*alive, plan))
        plans[key] = own
        if given is not None:
            self.make_direct(plan, *given)

    def make_direct(self, plan: WarmPlan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Lets a plan be found by arguments like these, in place of the one that is found so now, if it can be."""
        try:
            found = plan.direct = Direct(plan.call.plan, args, kwargs)
        except NotDirectError:
            return
        self.position = found.position
        first = None if found.position is None else (*args, *kwargs.values())[found.position]
        self.direct[0 if first is None else id(first)] = plan.reference

    def clear(self) -> None:
        """Forgets all plans."""
        self.plans.clear()
        self.direct.clear()
        self._owned.clear()


def _token(x: Any) -> Any:
    """What one leaf of the arguments contributes to the key."""
    if type(x) is StaticArgument:
        return Static(x.value)
    return id(x) if isinstance(x, OBJECTS) else 0
