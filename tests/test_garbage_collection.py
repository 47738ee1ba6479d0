"""Abstract traces run without full garbage collections, and leave Python's collector as it was."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn._src.garbage_collection import no_full_collections

MESH = jax.sharding.AbstractMesh((1,), ("data",))

ABSTRACT: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "eval_shape": liftnn.eval_shape,
    "eval_shape, an argument": lambda f: liftnn.eval_shape(lambda x: f(), jnp.ones(2)),
    "abstract": lambda f: liftnn.abstract(f, MESH),
}


class Weights(liftnn.Module):
    def __init__(self, count: int):
        self.weights = [liftnn.Param(jnp.ones(2)) for _ in range(count)]


@pytest.fixture(autouse=True)
def often() -> Iterator[tuple[int, int, int]]:
    """Collections that come so often that a full one is due at any time; thresholds that no default has."""
    before = gc.get_threshold()
    gc.set_threshold(20, 1, 1)
    yield gc.get_threshold()
    gc.set_threshold(*before)


@pytest.fixture
def generations() -> Iterator[list[int]]:
    """The generations that are collected while the test runs."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)


def grow() -> list[list[int]]:
    """So many objects that stay alive that Python collects all generations without the context."""
    return [[] for _ in range((len(gc.get_objects()) + gc.get_freeze_count()) // 2)]


def test_objects_that_stay_alive_make_full_collections(generations: list[int]) -> None:
    kept = grow()
    assert kept
    assert 2 in generations


@pytest.mark.parametrize("name", ABSTRACT)
def test_an_abstract_trace_has_young_collections_only(name: str, generations: list[int]) -> None:
    inside: set[int] = set()

    def make() -> Weights:
        generations.clear()
        kept = grow()
        assert kept
        inside.update(generations)
        return Weights(2)

    ABSTRACT[name](make)
    assert inside == {0, 1}


@pytest.mark.parametrize("name", ABSTRACT)
def test_the_thresholds_are_restored(name: str, often: tuple[int, int, int]) -> None:
    inside: list[tuple[int, int, int]] = []

    def make() -> Weights:
        inside.append(gc.get_threshold())
        return Weights(2)

    ABSTRACT[name](make)
    assert gc.get_threshold() == often
    assert inside[0][:2] == often[:2]
    assert inside[0][2] > 10**9


@pytest.mark.parametrize("name", ABSTRACT)
def test_the_thresholds_are_restored_after_an_exception(name: str, often: tuple[int, int, int]) -> None:
    def fail() -> Weights:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ABSTRACT[name](fail)
    assert gc.get_threshold() == often


@pytest.mark.parametrize("name", ABSTRACT)
@pytest.mark.parametrize("inner", ABSTRACT)
def test_nested_traces_restore_the_thresholds_once(
    name: str, inner: str, often: tuple[int, int, int], generations: list[int]
) -> None:
    inside: set[int] = set()

    def make() -> Weights:
        generations.clear()
        ABSTRACT[inner](lambda: Weights(2))
        kept = grow()  # the outer trace goes on
        assert kept
        inside.update(generations)
        return Weights(2)

    ABSTRACT[name](make)
    assert inside == {0, 1}
    assert gc.get_threshold() == often


@pytest.mark.parametrize("thresholds", [(0, 1, 1), (0, 0, 0)])
def test_no_collection_starts_where_there_was_none(
    thresholds: tuple[int, int, int], generations: list[int]
) -> None:
    gc.set_threshold(*thresholds)
    generations.clear()
    liftnn.eval_shape(lambda: (Weights(2), len(grow()))[0])
    assert not generations
    assert gc.get_threshold() == thresholds


def test_a_disabled_collector_stays_disabled(often: tuple[int, int, int], generations: list[int]) -> None:
    gc.disable()
    try:
        generations.clear()
        liftnn.eval_shape(lambda: (Weights(2), len(grow()))[0])
        assert not gc.isenabled()
        assert not generations
        assert gc.get_threshold() == often
    finally:
        gc.enable()


def test_an_explicit_collection_works_inside(generations: list[int]) -> None:
    def make() -> Weights:
        gc.collect()
        return Weights(2)

    liftnn.eval_shape(make)
    assert 2 in generations


def test_what_other_code_sets_inside_is_kept() -> None:
    def make() -> Weights:
        gc.set_threshold(30, 2, 3)
        return Weights(2)

    liftnn.eval_shape(make)
    assert gc.get_threshold() == (30, 2, 3)


def test_younger_thresholds_that_other_code_sets_inside_are_kept() -> None:
    def make() -> Weights:
        gc.set_threshold(30, 2)
        return Weights(2)

    liftnn.eval_shape(make)
    assert gc.get_threshold() == (30, 2, 1)


def test_of_several_threads_the_last_one_restores(often: tuple[int, int, int]) -> None:
    entered, leave = threading.Barrier(4), [threading.Event() for _ in range(3)]

    def trace(event: threading.Event) -> None:
        def make() -> Weights:
            entered.wait(60)
            event.wait(60)
            return Weights(2)

        liftnn.eval_shape(make)

    threads = [threading.Thread(target=trace, args=(event,)) for event in leave]
    for thread in threads:
        thread.start()
    entered.wait(60)
    for thread, event in zip(threads, leave, strict=True):
        assert gc.get_threshold()[2] > 10**9
        event.set()
        thread.join(60)
    assert gc.get_threshold() == often


def test_many_threads_that_enter_and_leave_restore_the_thresholds(often: tuple[int, int, int]) -> None:
    def enter() -> None:
        for _ in range(300):
            with no_full_collections:
                pass

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gc.get_threshold() == often
