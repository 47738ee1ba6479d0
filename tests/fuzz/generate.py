"""Draws random programs from a seed."""

from __future__ import annotations

import dataclasses
import random

from tests.fuzz.programs import METHODS, TOP_LEVEL, TRANSFORMS, Function, Program, Statement, Step, write

MODULES = ("m0", "m1", "m2", "m3")
HELD = (
    *MODULES,
    *MODULES,
    "trainer.model",
    "box.m",
    "ms[-1]",
    "md['k']",
    "queue[0]",
    "(late or m0)",
    "(grown or [m1])[-1]",
)
"""Expressions for the modules that a function can capture."""

PARAMETERS = (("a", "b", "x"), ("c", "d", "z"), ("e", "g", "t"))

READ = (
    "y = y + {r}.v.value",
    "y = y + {r}.w.value",
    "y = y + {r}.dv.value['a']",
    "y = y + {r}.k",
    "y = y + len({r}.items)",
    "y = y + {r}.arr",
    "y = y + {r}.d['n']",
    "y = y + {r}.size() + {r}.peek()",
    "y = y + (1 if {r}.training else 2)",
    "y = y + {r}.double(y)",
    "y = y + {r}.buf[0]",
    "y = y + {r}.v.scale",
    "y = y + sum(q.k for q in {r}.items)",
    "y = y + sum(q.v.value for q in {r}.items[-3:])",
    "y = wrap(y * {r}.v.value)",
)
READ_OPTIONS = (
    "y = y + {r}.options.rate",
    "y = y + {r}.options.total_rate()",
    "y = y + sum({r}.options.sizes)",
)
READ_CAPTURED = (
    "y = y + bound(y)",
    "y = y + part(y)",
    "y = y + trainer.step(y)",
    "y = y + sum(q.k + q.v.value for q in ms)",
    "y = y + sum(q.k + q.w.value for q in md.values())",
    "y = y + next(iter(md.values())).k",
    "y = y + sum(q.k for q in queue)",
    "y = y + sum(q.k for q in grown)",
    "y = y + (3 if late is None else late.k)",
)
WRITE = (
    "{r}.v.value = wrap({r}.v.value * 2 + y)",
    "{r}.w.value = wrap({r}.w.value + y)",
    "{r}.v.value = wrap({q}.w.value + {r}.v.value)",
    "{r}.w += 1",
    "{r}.v.value += 2",
    "{r}.v.value = arr({n})",
    "{r}.dv.value['a'] = wrap({r}.dv.value['a'] + y)",
    "t0 = {r}.v; t0.value = wrap(t0.value + 1); y = y + {r}.v.value",
    "s0 = state({r}); {q}.w.value = wrap({q}.w.value + 5); y = y + {q}.w.value; update({r}, s0)",
)
COPY = (
    "n0 = copy.deepcopy({r}); y = y + n0.v.value; n0.v.value = y; n0.k = 9; y = y + {r}.k",
    "n0 = clone({r}); y = y + n0.w.value + n0.k; n0.w.value = y",
    "n0 = clone({r}); outs.append(n0.v)",
    "n0 = rebuild({r}); y = y + n0.v.value + n0.sub.k; n0.sub.v.value = y",
)
SHAPE = (
    "{r}.k = {n}",
    "{r}.k = {n}; y = y + {q}.k",
    "{r}.k = ({r}.k + 1) % 5",
    "{r}.d['n'] = {n}",
    "{r}.d['n'] = {n}; y = y + {r}.peek()",
    "{r}.items.append({q}); y = y + {r}.size() + {q}.size()",
    "{r}.size = make_size({q}.items)",
    "{r}.peek = make_peek({q}.d)",
    "{r}.d = {{'n': {n}}}",
    "{r}.v.scale = {n}",
    "{r}.v = Param(wrap({r}.v.value + 1), scale=3)",
    "{r}.v = Param(wrap(y), scale=1); y = y + {q}.v.value",
    "{r}.sub = {q}",
    "{r}.sub = Node(y)",
    "{r}.items.append({q})",
    "{r}.items.append(Node(y))",
    "if {r}.items: y = y + {r}.items.pop().k",
    "{r}.v = {q}.v",
    "{r}.eval()",
    "{r}.seen = Intermediate(y); y = y + pop({r}, Intermediate)",
    "{r}.arr = wrap({r}.arr + y)",
)
RETURN = ("outs.append({r})", "outs.append({r}.v)", "outs.append(({r}, {q}.w))", "outs.append(Node(y))")
HOLDER = ("ms.append({r})", "md['new'] = {r}", "if ms[1:]: y = y + ms.pop().k")

CHANGE = (
    "{m}.k = {n}",
    "{m}.v.value = arr({n})",
    "{m}.w.value = arr({n})",
    "{m}.dv.value = dict(a=arr({n}))",
    "{m}.dv.value['a'] = arr({n})",
    "{m}.v = Param(arr({n}), scale={n})",
    "{m}.v.scale = {n}",
    "{m}.buf = np.full(2, {n}.0, np.float32)",
    "{m}.buf[0] = {n}",
    "{m}.sub = {o}",
    "{m}.items.append({o})",
    "{m}.items[:1] = []",
    "{m}.items = {o}.items",
    "{m}.d['n'] = {n}",
    "{m}.d = {o}.d",
    "{m}.peek = make_peek({o}.d)",
    "{m}.size = make_size({o}.items)",
    "{m}.arr = arr({n})",
    "{m}.eval()",
    "{m}.train()",
    "{m}.v = {o}.v",
    "{m} = Node(arr({n})); {m}.options = Options(1)",
    "{m} = {o}",
    "{m} = copy.deepcopy({o})",
)
CHANGE_OPTIONS = (
    "{m}.options.rate = {n}",
    "{m}.options.sizes.append({n})",
    "{m}.options.inner = Options({n})",
    "{m}.options = {o}.options",
    "{m}.options.inner = {o}.options",
)
CHANGE_HELD = (
    "trainer.model = {m}",
    "box.m = {m}",
    "ms.append({m})",
    "ms[-1] = {m}",
    "ms.reverse()",
    "md['k'] = {m}",
    "md['j'] = {m}",
    "md['k'] = md.pop('k')",
    "queue[0] = {m}",
    "queue.append({m})",
    "late = {m}",
    "grown.append({m})",
    "bound = {m}.double",
    "part = functools.partial(helper, {m})",
)
CHANGE_UNWATCHED = (
    "vars({m})['k'] = {n}",
    "object.__setattr__({m}, 'k', {n})",
    "vars({m}).update(sub={o})",
    "{m}.act = make_act({o})",
    "{m}.act = twice",
)


@dataclasses.dataclass
class Scope:
    """What a function under generation can name."""

    depth: int
    own: tuple[str, ...]
    captured: tuple[str, ...]
    outer_captured: bool
    may_fail: bool = True


class Generator:
    """Draws one program."""

    def __init__(self, seed: int, level: int = TOP_LEVEL):
        self.random = random.Random(seed)
        self.level = level
        self.count = 0
        self.holders = level > 1 and self.random.random() < 0.08
        """Whether functions change lists and dicts that they capture."""
        self.shapes = self.random.choice((0.0, 0.0, 1.0))
        """How often structure changes: where it does, most calls at the top level are errors."""
        self.options = self.random.random() < 0.25
        """Whether functions read plain objects in modules, which change between calls."""
        self.callable: list[Function] = []

    def program(self) -> Program:
        graph = self.graph()
        functions = tuple(self.top_function(i) for i in range(self.random.randint(1, 3)))
        transforms = []
        for f in functions:
            for outer in self.outer_transforms(f):
                transforms.append((f"g{len(transforms)}", outer, f.name))
        if self.level > 0 and self.random.random() < 0.3:
            transforms.append((f"g{len(transforms)}", "jit", self.random.choice(list(METHODS))))
        steps = tuple(step for _ in range(self.random.randint(3, 6)) for step in self.steps(transforms))
        program = Program(self.random.random() < 0.5, graph, functions, tuple(transforms), steps)
        if "donating_jit" in write(program):  # after which numpy's arrays are JAX's, as documented
            steps = tuple(step for step in steps if ".buf[0] = " not in step.text)
        return dataclasses.replace(program, steps=steps)

    # --- the graph

    def graph(self) -> tuple[str, ...]:
        pick = self.random.choice
        lines = [f"{m} = Node(arr({i + 1}))" for i, m in enumerate(MODULES)]
        lines += [f"{m}.options = Options({i}, Options(2))" for i, m in enumerate(MODULES)]
        lines += [f"{m}.sub = {pick(MODULES)}" for m in MODULES]
        lines += ["spare = Node(arr(5))", "spare.sub = Node(arr(6))"]
        lines += [f"{pick(MODULES)}.items.append({pick(MODULES)})" for _ in range(self.random.randint(0, 4))]
        if self.random.random() < 0.4:
            lines.append(f"{pick(MODULES)}.v = {pick(MODULES)}.v")
        if self.random.random() < 0.3:
            lines.append(f"{pick(MODULES)}.items = {pick(MODULES)}.items")
        if self.level > 1 and self.random.random() < 0.5:
            lines.append(f"{pick(MODULES)}.act = make_act({pick(MODULES)})")
        lines += [
            f"trainer = Trainer({pick(MODULES)})",
            f"box = types.SimpleNamespace(m={pick(MODULES)})",
            f"ms = [{pick(MODULES)}]",
            f"md = dict(k={pick(MODULES)})",
            f"queue = collections.deque([{pick(MODULES)}])",
            "late = None",
            "grown = []",
            f"bound = {pick(MODULES)}.double",
            f"part = functools.partial(helper, {pick(MODULES)})",
        ]
        return tuple(lines)

    # --- functions

    def top_function(self, number: int) -> Function:
        captures = self.level > 0 and self.random.random() < 0.7
        own = () if captures and self.level == 1 else PARAMETERS[0][:2]
        scope = Scope(0, own, HELD if captures else (), captures)
        default = self.random.choice(MODULES) if captures and self.random.random() < 0.15 else ""
        if default:
            scope.captured += ("p",) * 4
        f = Function(f"f{number}", PARAMETERS[0], self.body(scope, self.random.randint(1, 6)), default)
        if not any("fails" in tags for tags in _all_tags(f)):
            self.callable.append(f)
        return f

    def body(self, scope: Scope, length: int) -> tuple[Statement, ...]:
        return tuple(self.statement(scope) for _ in range(length))

    def statement(self, scope: Scope) -> Statement:
        draw = self.random.random()
        if draw < 0.22 and scope.depth < 2:
            return self.nest(scope)
        if draw < 0.25 and scope.may_fail:
            r, tags = self.reference(scope)
            return Statement(f"if {r}.k > 2: raise Boom", tags | {"fails"})
        if draw < 0.28 and self.holders and scope.captured:
            return self.fill(HOLDER, scope, {"holder"})
        if draw < 0.48:
            return self.fill(WRITE, scope, {"write"})
        if draw < 0.54:
            return self.fill(COPY, scope, set())
        if draw < 0.54 + 0.14 * self.shapes:
            captured = self.level > 1 and self.random.random() < 0.15
            return self.fill(SHAPE, scope, {"write", "structure"}, captured)
        if draw < 0.74:
            return self.fill(RETURN, scope, {"returns"})
        if draw < 0.82 and scope.captured and scope.depth == 0:
            return self.fill(READ_CAPTURED, scope, {"captured"})
        if draw < 0.86 and self.level > 1:
            return self.fill(("y = y + {r}.act(y)",), scope, {"captured"})
        return self.fill(READ_OPTIONS if self.options else READ, scope, set())

    def fill(self, texts: tuple[str, ...], scope: Scope, tags: set[str], captured: bool = True) -> Statement:
        """A statement of one of these kinds, about modules that the scope names."""
        if not captured and not scope.own:
            texts, tags = READ, set()
        own = scope if captured or not scope.own else dataclasses.replace(scope, captured=())
        (r, r_tags), (q, q_tags) = self.reference(own), self.reference(scope)
        text = self.random.choice(texts)
        all_tags = r_tags | tags | (q_tags if "{q}" in text else set())
        if "structure" in tags and "captured" in r_tags:
            all_tags |= {"captured structure"}
        return Statement(text.format(r=r, q=q, n=self.random.randint(0, 4)), frozenset(all_tags))

    def reference(self, scope: Scope) -> tuple[str, frozenset[str]]:
        """An expression for a module, and whether it is captured."""
        captured = bool(scope.captured) and (not scope.own or self.random.random() < 0.5)
        base = self.random.choice(scope.captured if captured else scope.own)
        draw = self.random.random()
        if draw < 0.2:
            base = f"{base}.sub"
        elif draw < 0.3:
            base = f"({base}.items or [{base}])[-1]"
        return base, frozenset({"captured"}) if captured else frozenset()

    def nest(self, scope: Scope) -> Statement:
        """A call of a transform, of a function that is made here or of one that was made before."""
        transform = self.random.choice(list(TRANSFORMS))
        tags = set(TRANSFORMS[transform])
        first, first_tags = self.argument(scope)
        second, second_tags = self.argument(scope)
        tags |= first_tags | second_tags
        if transform == "donating_jit" and "captured" in first_tags:
            tags.add("captured structure")  # since all arrays of what is donated are new ones
        nested: tuple[Function, ...] = ()
        calls = ""
        may_call = self.callable and transform != "either" and scope.depth == 0
        if may_call and (scope.outer_captured or self.level != 1) and self.random.random() < 0.3:
            calls = self.random.choice(self.callable).name
        if not calls:
            nested = tuple(self.nested_function(scope, transform) for _ in range(1 + (transform == "either")))
        names = calls or ", ".join(g.name for g in nested)
        text = f"out = {transform}({names})({first}, {second}, y)"
        if scope.may_fail and self.random.random() < 0.2:
            text = f"try: {text}\nexcept Boom: out = y, []"
        return Statement(text + "\ny = wrap(y + out[0]); outs += out[1]", frozenset(tags), nested, calls)

    def argument(self, scope: Scope) -> tuple[str, frozenset[str]]:
        if self.level == 1:
            return self.random.choice(PARAMETERS[scope.depth][:2]), frozenset()
        return self.reference(scope)

    def nested_function(self, scope: Scope, transform: str) -> Function:
        parameters = PARAMETERS[scope.depth + 1]
        captured = scope.captured
        if self.level > 1:
            captured += scope.own * 3
        own = parameters[:2] if scope.own else ()
        may_fail = scope.may_fail and transform in ("jit", "remat", "grad", "scan_one", "scan", "fori")
        self.count += 1
        inner = Scope(scope.depth + 1, own, captured, scope.outer_captured, may_fail)
        return Function(f"h{self.count}", parameters, self.body(inner, self.random.randint(1, 3)))

    # --- calls and changes

    def outer_transforms(self, f: Function) -> list[str]:
        kinds = [
            "jit",
            "jit",
            "jit",
            "remat",
            "grad",
            "scan_one",
            "scan",
            "vmap",
            "fori",
            "repeat_while",
            "bounded_while",
            "carry",
            "each",
            "checked",
            "undone",
            "vjp",
            "linearize",
            "jvp",
            "jacfwd",
            "hessian",
            "vmap_new",
            "scan_new",
            "vmap_part",
            "scan_part",
        ]
        if self.level > 1:
            kinds.append("donating_jit")
        if not any("fails" in tags for tags in _all_tags(f)):
            kinds += ["cond", "pick"]
        return [self.random.choice(kinds) for _ in range(self.random.choice((1, 1, 1, 2)))]

    def steps(self, transforms: list[tuple[str, str, str]]) -> list[Step]:
        pick = self.random.choice
        name = pick(transforms)[0]
        own = MODULES if self.level != 1 else ("spare", "spare.sub")
        a, b = pick(own), pick(own)
        x = pick(("arr(1)", "arr(1)", "arr(2)", "arr(3)", "arr(2, 5)"))
        found = [Step(f"{name}, {a}, {b}, {x}", name)] * self.random.choice((1, 1, 2))
        changes = [self.change() for _ in range(self.random.choice((0, 1, 1, 2)))]
        if self.options:
            m = pick((a, b)) if self.level != 1 else pick(MODULES)
            changes.append(self.change_of(CHANGE_OPTIONS, m))
        again = self.options or self.random.random() < 0.5
        return [*found, *changes, *found[:again]]

    def change(self) -> Step:
        pick = self.random.choice
        pool = pick((CHANGE, CHANGE, *((CHANGE_HELD,) * (self.level > 0))))
        if self.level > 1 and self.random.random() < 0.15:
            pool = CHANGE_UNWATCHED
        return self.change_of(pool, pick(MODULES))

    def change_of(self, pool: tuple[str, ...], m: str) -> Step:
        """A change of a module, of one of these kinds."""
        pick = self.random.choice
        return Step(pick(pool).format(m=m, o=pick(MODULES), n=self.random.randint(0, 4)))


def _all_tags(f: Function) -> list[frozenset[str]]:
    """The tags of all statements of a function, those of nested functions included."""
    own = [statement.tags for statement in f.body]
    return own + [tags for s in f.body for g in s.nested for tags in _all_tags(g)]


def generate(seed: int, level: int = TOP_LEVEL) -> Program:
    """The program of a seed."""
    return Generator(seed, level).program()
