"""What only the constructor of a captured object names causes no trace, unless the code creates such objects."""

from __future__ import annotations

import collections

import jax.numpy as jnp
import optax
import pytest

import liftnn

X = jnp.ones((4, 3))


class Base:
    """What trainers have in common."""

    def __init__(self):
        self.model = liftnn.Linear(3, 1, rngs=liftnn.Rngs(0))
        self.optimizer = liftnn.Optimizer(self.model, optax.sgd(0.1))
        self.snapshots = []
        self.best = None
        self.history = collections.deque(maxlen=2)
        self.by_step = {}
        self.calls = 0

    def _step(self, x):
        loss, grads = liftnn.value_and_grad(lambda model: (model(x) ** 2).mean())(self.model)
        self.optimizer.update(self.model, grads)
        return loss


class Trainer(Base):
    """A subclass, whose constructor names more."""

    def __init__(self):
        super().__init__()
        self.callback = Callback()


class Callback:
    def __init__(self):
        self.weights = None


class Slotted:
    """The same with slots."""

    __slots__ = ("model", "snapshots")

    def __init__(self):
        self.model = liftnn.Linear(3, 1, rngs=liftnn.Rngs(0))
        self.snapshots = []

    def _step(self, x):
        self.model.bias += 1.0
        return (self.model(x) ** 2).mean()


KEEP = {
    "a clone in a list": lambda t: t.snapshots.append(liftnn.clone(t.model)),
    "the best": lambda t: setattr(t, "best", liftnn.clone(t.model)),
    "the state": lambda t: t.by_step.update({len(t.by_step): liftnn.state(t.model)}),
    "a queue": lambda t: t.history.append(liftnn.clone(t.model)),
    "a callback": lambda t: setattr(t.callback, "weights", liftnn.clone(t.model)),
    "a count": lambda t: setattr(t, "calls", t.calls + 1),
}


@pytest.mark.parametrize("form", ["bound method", "function", "nested"])
@pytest.mark.parametrize("keep", KEEP.values(), ids=KEEP)
def test_what_a_trainer_keeps_between_steps_causes_no_trace(keep, form):
    trainer, reference = Trainer(), Trainer()
    forms = {
        "bound method": lambda: trainer._step,
        "function": lambda: lambda x: trainer._step(x),
        "nested": lambda: lambda x: liftnn.remat(trainer._step)(x),
    }
    step = liftnn.jit(forms[form]())
    for _ in range(4):
        assert float(step(X)) == pytest.approx(float(reference._step(X)), rel=1e-5)
        keep(trainer)
    assert step.n_traces == 1


def test_an_object_with_slots():
    trainer = Slotted()
    step = liftnn.jit(trainer._step)
    for i in range(4):
        step(X)
        trainer.snapshots.append(liftnn.clone(trainer.model))
        assert float(trainer.model.bias[0]) == i + 1
    assert step.n_traces == 1


def test_what_the_code_names_does_cause_one():
    class Counted(Trainer):
        def _step(self, x):
            return super()._step(x) + len(self.snapshots)

    trainer, reference = Counted(), Counted()
    step = liftnn.jit(trainer._step)
    for _ in range(3):
        assert float(step(X)) == pytest.approx(float(reference._step(X)), rel=1e-5)
        for t in (trainer, reference):
            t.snapshots.append(liftnn.clone(t.model))
    assert step.n_traces == 3


DEFAULT = liftnn.Linear(3, 1, rngs=liftnn.Rngs(1))


class UsesDefault:
    """An object whose constructor captures a module."""

    def __init__(self):
        self.model = DEFAULT

    def __call__(self, x):
        self.model.bias += 1.0
        return self.model(x).sum()

    def again(self, x):
        return type(self)()(x)


@pytest.mark.filterwarnings("ignore::liftnn.CaptureWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda x: UsesDefault()(x),
        lambda: UsesDefault().again,
        lambda: lambda x, cls=UsesDefault: cls()(x),
        lambda: lambda x: (lambda: [UsesDefault])()[0]()(x),
    ],
    ids=["by name", "by the type of self", "by a default", "in a list"],
)
def test_a_constructor_that_the_code_runs_is_searched(make):
    step, plain = liftnn.jit(make()), make()
    for value in (0.0, 5.0, 2.0):
        DEFAULT.bias.value = jnp.full(1, value)
        found, bias = float(step(X)), float(DEFAULT.bias[0])
        DEFAULT.bias.value = jnp.full(1, value)
        assert (found, bias) == (pytest.approx(float(plain(X)), rel=1e-5), float(DEFAULT.bias[0]))
    DEFAULT.kernel.value = DEFAULT.kernel * 2
    assert float(step(X)) == pytest.approx(float(plain(X)) - 4.0, rel=1e-4)
