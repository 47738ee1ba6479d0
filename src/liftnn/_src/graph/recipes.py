"""How a transformed function was made, so that a copy of what holds it gets one that acts on the copy.

`self.step = liftnn.jit(self.count)` stores a transformed method. It is a node: its children are the functions that were
transformed, and its static part is the transform with its options. So it is made again from the methods of the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.static_values.static import Static
from liftnn._src.static_values.value_types import Identity


class Recipe:
    """A transform with its options. Two are equal if they make interchangeable functions of the same functions.

    Args:
      transform: The public transform, such as `liftnn.jit`.
      args: Its options by position, after the functions.
      options: Its options by name.
      rules: The names of the functions of a custom rule. The default is none.
      define: Takes what the transform returns, and the functions of the rule: the method that sets the rule.
      rule_options: The options of that method by name.
    """

    __slots__ = ("_key", "args", "define", "options", "rule_options", "rules", "transform")

    def __init__(
        self,
        transform: Callable[..., Any],
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        rules: tuple[str, ...] = (),
        define: str = "",
        rule_options: Mapping[str, Any] | None = None,
    ):
        self.transform = transform
        self.args = args
        self.options = dict(options)
        self.rules = rules
        self.define = define
        self.rule_options = dict(rule_options or {})
        self._key: Any = None

    def __call__(self, function: Callable[..., Any], *others: Callable[..., Any]) -> Any:
        """Transform functions; with a rule, the first one, and the others are the rule."""
        if not self.define:
            return self.transform(function, *others, *self.args, **self.options)
        transformed = self.transform(function, *self.args, **self.options)
        getattr(transformed, self.define)(*others, **self.rule_options)
        return transformed

    def with_rule(self, define: str, rules: tuple[str, ...], **options: Any) -> Recipe:
        """Return a recipe that also sets a custom rule."""
        return Recipe(self.transform, self.args, self.options, rules, define, options)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The transform and all options."""
        options = tuple(self.options.items())
        return self.transform, self.args, options, self.rules, self.define, tuple(self.rule_options.items())

    @property
    def key(self) -> Any:
        """The key for comparisons, computed when first used."""
        if self._key is None:
            try:
                self._key = Static(self.parts)
            except errors.StructureError:  # an option that cannot be compared by content
                self._key = Identity(self)
        return self._key

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Recipe) and self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={x!r}" for name, x in self.options.items())]
        return f"{getattr(self.transform, '__name__', self.transform)}({', '.join(arguments)})"

    def __reduce__(self) -> Any:
        return Recipe, (self.transform, self.args, self.options, self.rules, self.define, self.rule_options)
