"""deepcopy, pickle and cloudpickle keep values, sharing and cycles, however deep the chain."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import textwrap

import cloudpickle
import jax.numpy as jnp
import pytest
from tests.alike import find_difference
from tests.interrupted import interruptions
from tests.strategies import Node, Record, Slotted, Sub

import liftnn


def pure_python_pickle(x):
    """As picklers do that are subclasses of the one written in Python, such as dill's."""
    file = io.BytesIO()
    pickle._Pickler(file).dump(x)
    return pickle.loads(file.getvalue())


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "pickle protocol 2": lambda x: pickle.loads(pickle.dumps(x, protocol=2)),
    "pickle in Python": pure_python_pickle,
    "cloudpickle": lambda x: cloudpickle.loads(cloudpickle.dumps(x)),
}
every_copy = pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)


def make_model():
    w = liftnn.Param(jnp.ones((2, 3)), tag="shared", axes=[1, 2])
    inner = Sub(w=w, items=[w, {"k": (w, 1)}])
    model = Node(
        a=inner, b=[inner, Record(inner)], x=jnp.arange(3.0), n=1, empty=Node(), s=Slotted(a=inner, c=2)
    )
    inner.up = model
    model.me = model
    return model


@every_copy
def test_a_copy_is_alike_and_independent(make_copy):
    model = make_model()
    new = make_copy(model)
    assert find_difference(model, new) is None
    new.a.w.value = jnp.zeros((2, 3))
    new.b.append(1)
    assert find_difference(model, make_model()) is None


@every_copy
def test_a_variable_is_copied_with_type_metadata_and_value(make_copy):
    new = make_copy(liftnn.BatchStat(jnp.arange(2.0), tag="a", axes=[1]))
    assert type(new) is liftnn.BatchStat
    assert (new.value.tolist(), new.get_metadata()) == ([0, 1], {"tag": "a", "axes": [1]})


@every_copy
def test_a_variable_whose_metadata_lead_back_to_it_is_copied(make_copy):
    v = liftnn.Param(1.0)
    v.owner = Node(w=v)
    new = make_copy(v)
    assert new.owner.w is new
    assert new.value == 1.0


@every_copy
def test_what_several_models_share_stays_shared_in_a_tuple(make_copy):
    shared = Sub(w=liftnn.Param(1.0))
    one, two = Node(s=shared), Node(deep=[Node(s=shared)])
    a, b, c = make_copy((one, {"two": two}, shared))
    assert a.s is b["two"].deep[0].s is c
    assert find_difference((one, {"two": two}, shared), (a, b, c)) is None


@every_copy
def test_a_module_reached_first_through_plain_objects_is_copied_whole(make_copy):
    holder = Holder()
    holder.model = make_model()
    holder.part = holder.model.a
    new = make_copy([holder, holder.part, holder.model])
    assert new[0].part is new[1] is new[2].a
    assert find_difference(holder.model, new[2]) is None


class Holder:
    """A plain object."""


@pytest.mark.sample(5)
@every_copy
def test_a_chain_of_3000_modules_is_copied(make_copy):
    model = last = Node(i=0)
    for i in range(1, 3000):
        last.next = Node(i=i, w=liftnn.Param(float(i))) if i % 2 else Node(i=i, first=model)
        last = last.next
    new = make_copy(model)
    first = new
    for i in range(3000):
        assert new.i == i
        if i % 2:
            assert new.w.value == float(i)
        elif i:
            assert new.first is first
        new = getattr(new, "next", None)
    assert new is None


def test_a_chain_through_lists_is_copied():
    model = last = Node()
    for _ in range(3000):
        last.next = [Node()]
        last = last.next[0]
    assert find_difference(model, copy.deepcopy(model)) is None
    assert find_difference(model, pickle.loads(pickle.dumps(model))) is None


def test_a_shallow_copy_shares_the_attributes():
    model = make_model()
    new = copy.copy(model)
    assert new is not model
    assert new.a is model.a
    assert new.x is model.x
    new.n = 2
    assert model.n == 1


def test_deepcopy_uses_the_memo_that_it_is_given():
    w = liftnn.Param(1.0)
    model, other = Node(w=w), Node(w=w, model=None)
    other.model = model
    memo = {}
    new = copy.deepcopy(model, memo)
    assert copy.deepcopy(other, memo).model is new
    assert copy.deepcopy(other, memo).w is new.w


class Fragile:
    """A static value that cannot be copied until it is repaired."""

    broken = True

    def __deepcopy__(self, memo):
        if self.broken:
            raise ValueError("broken")
        return self

    def __reduce__(self):
        if self.broken:
            raise ValueError("broken")
        return (Fragile, ())


@every_copy
def test_a_copy_that_failed_has_no_effect_on_the_next(make_copy):
    model = Node(sub=Node(fragile=Fragile(), w=liftnn.Param(1.0)), n=3)
    with pytest.raises(ValueError, match="broken") as failed:
        make_copy(model)
    model.sub.fragile = "repaired"
    for part in (model, model.sub):
        assert find_difference(part, make_copy(part)) is None
    assert failed.value.__traceback__ is not None  # the frames of the failed copy are still alive


@pytest.mark.parametrize("pickler", [pickle.Pickler, pickle._Pickler, cloudpickle.Pickler])
def test_a_pickle_that_is_interrupted_has_no_effect_on_the_next(pickler):
    model = Node(sub=Node(w=liftnn.Param(1.0)), n=3)
    for at in interruptions(
        lambda: lambda: pickler(io.BytesIO()).dump(model), "modules/pickling.py", "/pickle.py"
    ):
        for part in (model, model.sub):
            new = pickle.loads(pickle.dumps(part))
            assert find_difference(part, new) is None, f"line event {at}"


@every_copy
def test_a_copy_made_while_another_is_being_made_is_whole(make_copy):
    class Copying:
        """Copies the model while it is being copied."""

        def __deepcopy__(self, memo):
            seen.append(make_copy(plain))
            return self

        def __reduce__(self):
            seen.append(make_copy(plain))
            return (dict, ())

    seen = []
    plain = Node(n=1, sub=Node(m=2))
    make_copy(Node(plain=plain, copying=Copying()))
    assert find_difference(plain, seen[0]) is None


class Custom(Node):
    """A module that says itself how it is copied."""

    def __deepcopy__(self, memo):
        return Custom(copied=True)


def test_a_module_may_say_itself_how_it_is_copied():
    new = copy.deepcopy(Node(c=Custom(copied=False)))
    assert new.c.copied is True


SCRIPT = """
    import cloudpickle, pickle, sys
    import jax.numpy as jnp
    import liftnn

    class Block(liftnn.Module):
        def __init__(self, n):
            self.w = liftnn.Param(jnp.full(2, n))
            self.above = None
        def __call__(self):
            return self.w.value.sum() + helper()

    class Model(liftnn.Module):
        def __init__(self):
            self.a, self.b = Block(1.0), Block(2.0)
            self.b.w = self.a.w
            self.a.above = self.b.above = self
        def __call__(self):
            return super().__repr__() and self.a() + self.b()

    def helper():
        return 10

    sys.stdout.buffer.write(cloudpickle.dumps((Model(), Block)))
"""


@pytest.mark.thorough
def test_cloudpickle_takes_classes_of_the_main_script_along():
    script = textwrap.dedent(SCRIPT)
    written = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    model, block = cloudpickle.loads(written.stdout)
    assert type(model.a) is block
    assert model.a.w is model.b.w
    assert model.a.above is model
    assert model() == 24


def test_a_graphdef_and_its_state_are_pickled():
    model = make_model()
    state, graphdef = liftnn.split(model)
    new_state, new_graphdef = pickle.loads(pickle.dumps((state, graphdef)))
    assert new_graphdef == graphdef
    assert hash(new_graphdef) == hash(graphdef)
    assert find_difference(model, new_graphdef.merge(new_state)) is None


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_graphdef_of_every_kind_of_static_value_is_pickled(dumps):
    model = Node(
        f=make_model, g=len, c=int, s={1}, t=(1, (None, "a")), z=-0.0, e=..., d=jnp.float32, m={"a": [1.5]}
    )
    graphdef = liftnn.split([model, "static", 3])[-1]
    assert pickle.loads(dumps(graphdef)) == graphdef


def test_a_graphdef_over_closures_is_pickled_by_cloudpickle():
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    state, graphdef = liftnn.split(model)
    new = cloudpickle.loads(cloudpickle.dumps(graphdef)).merge(state)
    assert (new(jnp.ones((1, 2))) == model(jnp.ones((1, 2)))).all()


# --- where pickles look for things


class Noting(pickle.Unpickler):
    """Reads a pickle, and notes where it looks for classes and functions."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.places: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str):
        self.places.add((module, name))
        return super().find_class(module, name)


def every_layer():
    """A model with every layer, and all else that a module may hold of liftnn's."""
    rngs = liftnn.Rngs(0)
    layers = [
        liftnn.Linear(2, 3, rngs=rngs),
        liftnn.LinearGeneral(2, 3, rngs=rngs),
        liftnn.Einsum("ab,bc->ac", (2, 3), rngs=rngs),
        liftnn.Conv(2, 3, 3, rngs=rngs),
        liftnn.ConvTranspose(2, 3, 3, rngs=rngs),
        liftnn.Embed(3, 2, rngs=rngs),
        liftnn.BatchNorm(3, rngs=rngs),
        liftnn.LayerNorm(3, rngs=rngs),
        liftnn.RMSNorm(3, rngs=rngs),
        liftnn.GroupNorm(3, num_groups=1, rngs=rngs),
        liftnn.InstanceNorm(3, rngs=rngs),
        liftnn.SpectralNorm(liftnn.Linear(3, 3, rngs=rngs), rngs=rngs),
        liftnn.WeightNorm(liftnn.Linear(3, 3, rngs=rngs), rngs=rngs),
        liftnn.Dropout(0.1, rngs=rngs),
        liftnn.PReLU(),
    ]
    held = [
        liftnn.Empty,
        liftnn.Carry,
        liftnn.All(liftnn.Param, ...),
        liftnn.StateAxes({liftnn.Param: 0, ...: None}),
    ]
    bound, tags = layers[0].__call__, {"tag", 1}
    return Node(
        layers=liftnn.Sequential(*layers), held=held, bound=bound, tags=tags, f=liftnn.relu, x=jnp.ones(2)
    )


def exported():
    f = liftnn.export(liftnn.jit(lambda model, x: model(x)))
    return f(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), jnp.ones((1, 2)))._contents


STORED = {
    "modules": every_layer,
    "a State": lambda: liftnn.state(every_layer()),
    "a GraphDef": lambda: liftnn.split(every_layer())[1],
    "metrics": lambda: liftnn.MultiMetric(a=liftnn.Average(), b=liftnn.Accuracy(), c=liftnn.Welford()),
    "a compiled function": lambda: liftnn.jit(jnp.sum),
    "an exported function": exported,
    "an error": lambda: liftnn.StructureError("What happened."),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("make", STORED.values(), ids=STORED)
def test_no_pickle_refers_to_where_something_is_defined(make):
    reader = Noting(pickle.dumps(make()))
    reader.load()
    assert [place for place in reader.places if "_src" in place[0] and place[0].startswith("liftnn")] == []
