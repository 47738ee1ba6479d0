"""`save`, `restore`, `saved_steps` and `Checkpoints`: the state of a training run in a folder, and back."""

from __future__ import annotations

import functools
import importlib
import os
import pathlib
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from liftnn import errors
from liftnn._src.checkpoints.restored import Restored
from liftnn._src.checkpoints.steps import (
    as_max_to_keep,
    as_step,
    check_next,
    check_path,
    find_steps,
    make_folder,
)
from liftnn._src.files import as_file_name
from liftnn._src.publish import publish
from liftnn._src.sharding.agreement import agree
from liftnn._src.tracebacks import boundary

if TYPE_CHECKING:
    from liftnn._src.checkpoints.orbax import Manager
    from liftnn._src.checkpoints.ranking import Ranking

Folder = str | os.PathLike[str]


def _load(name: str) -> Any:
    """Load a file of this folder at first use."""
    return importlib.import_module(f"liftnn._src.checkpoints.{name}")


def _load_manager(folder: pathlib.Path, compress: bool) -> Manager:
    return _load("orbax").Manager(str(folder), compress)


@boundary
def save(
    folder: Folder,
    step: int,
    /,
    *modules: Any,
    values: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    max_to_keep: int | None = None,
    compress: bool = False,
) -> None:
    """Save modules and plain values in a folder, and return when the checkpoint is complete.

    A checkpoint is either complete or not there: if the process is killed while it saves, the last one is found. To go
    on with the training while a checkpoint is written, and to keep the best ones, use `Checkpoints`.

    With several processes of `jax.distributed`, all of them call it, with a folder that all of them see. Each writes
    its shards; of plain values, numpy arrays, and arrays that each process holds as a whole, those of process 0 are
    written. If a process cannot save, or would save something else, all of them raise before anything is written.

    Args:
      folder: The folder for all checkpoints of the run; it is created.
      step: The number of the checkpoint, from 0 on: an int, or an array or Variable with one, such as `optimizer.step`.
      *modules: The model, Optimizer, Rngs, metrics: modules, Variables, States, or lists and dicts of them. What they
        share is saved once. Static attributes, such as a dropout rate, are not part of their state and not saved.
      values: Plain values by name, such as the epoch: numbers, strings, arrays, and lists, tuples and dicts of them.
      metrics: Numbers by name, which `Checkpoints(best=...)` compares.
      max_to_keep: The number of the latest checkpoints to keep; then the step must be above all steps in the folder.
        The default, None, keeps all.
      compress: Whether to compress the files; see `Checkpoints`.

    Raises:
      ArgumentError: If the step is not a non-negative integer or already exists, if `max_to_keep` is less than 1, or if
        two arrays have the same path.
      CheckpointError: If the folder cannot be written, or if `max_to_keep` is given and a later step is there.
      ArgumentTypeError: If something cannot be saved: it is abstract, a tracer, or of another type.
      DonatedError: If the buffer of a Variable was donated.
      StructureError: If another process saves another step or other modules.
      MissingPackageError: If Orbax is not installed.

    Example:
      >>> import liftnn, optax, tempfile
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> optimizer = liftnn.Optimizer(model, optax.adam(1e-3))
      >>> folder = tempfile.mkdtemp()
      >>> liftnn.save(folder, 1, model, optimizer, values={"epoch": 1})
      >>> liftnn.saved_steps(folder)
      [1]
    """
    checkpoints = Checkpoints(folder, max_to_keep=max_to_keep, compress=compress)
    checkpoints.save(step, *modules, values=values, metrics=metrics)


@boundary
def restore(folder: Folder, /, *modules: Any, step: int | None = None, strict: bool = True) -> Restored:
    """Fill modules in place from a checkpoint.

    Everything is checked before anything is changed: the files by their checksums, and every path, shape and dtype.
    Arrays get the sharding of those that they replace, whatever the number of devices at the time of saving. Modules
    from `eval_shape` get the shardings of their abstract arrays.

    With several processes of `jax.distributed`, all of them call it; if one of them raises, all of them do, and nothing
    is changed in any.

    Args:
      folder: The folder.
      *modules: Modules of the same structure as those that were saved, in the same order; `...` skips a module.
      step: The step, as in `save`. The default, None, is the latest.
      strict: Whether to raise if something does not fit. If False, what fits is restored, and the result says what
        does not.

    Returns:
      The step, the plain values, the metrics, and with `strict=False` what does not fit.

    Raises:
      ArgumentError: If the step is not a non-negative integer.
      CheckpointError: If there is no such checkpoint, if it is damaged, or if paths are missing or unexpected, or have
        other shapes, dtypes or ties than in the modules; the message lists all. Nothing is changed then.
      ArgumentTypeError: If an argument is not a module, a Variable or a State, or a tree of them; or has a tracer.
      StructureError: If another process restores another step, or into other modules.
      MissingPackageError: If Orbax is not installed.

    Example:
      >>> import liftnn, tempfile
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> folder = tempfile.mkdtemp()
      >>> liftnn.save(folder, 1, model, values={"epoch": 4})
      >>> other = liftnn.Linear(2, 3, rngs=liftnn.Rngs(1))
      >>> liftnn.restore(folder, other).values["epoch"]
      4
      >>> bool((other.kernel == model.kernel).all())
      True
    """
    return Checkpoints(folder).restore(*modules, step=step, strict=strict)


@boundary
def saved_steps(folder: Folder, /) -> list[int]:
    """Return the steps of the complete checkpoints in a folder.

    Args:
      folder: The folder; it need not exist.

    Returns:
      The steps in order.

    Raises:
      OSError: If the folder cannot be read.

    Example:
      >>> import liftnn, tempfile
      >>> liftnn.saved_steps(tempfile.mkdtemp())
      []
    """
    return Checkpoints(folder).steps()


def _may_save(x: Checkpoints, folder: pathlib.Path) -> bool:
    """Return whether an object may be saving to a folder, perhaps under another path, through symbolic links."""
    return x._manager is not None and os.path.realpath(x._folder) == os.path.realpath(folder)


_unclosed: weakref.WeakSet[Checkpoints] = weakref.WeakSet()
"""Those that may be saving in the background; whoever reads the same folder waits for them."""
_lock = threading.RLock()
"""Held while a save starts or ends: Orbax removes what another thread is writing in the same folder. A signal handler
may save as well, so the thread that holds it can take it again."""


@boundary
class Checkpoints:
    """The checkpoints of a run in a folder, saved in the background while training continues.

    Within a `with` block `save` returns when the arrays are copied, and the files are written in the background; the
    block ends when they are complete. Outside of it `save` returns when they are complete.

    Args:
      folder: The folder; the first save creates it.
      max_to_keep: The number of checkpoints to keep; then each step must be above all steps in the folder. The default,
        None, keeps all.
      best: The name of a metric. Then the `max_to_keep` checkpoints with the best values are kept, and the latest. The
        default, None, keeps the latest ones.
      best_mode: `"max"` if higher values of the metric are better, which is the default, or `"min"`.
      compress: Whether to compress the files, with zstd. The default, False, writes arrays as they are, which is about
        twice as fast; float32 weights would hardly become smaller. `restore` reads both.

    Raises:
      ArgumentError: If `max_to_keep` is not a number from 1 on, or `best_mode` is another word.

    Example:
      >>> import liftnn, tempfile
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> with liftnn.Checkpoints(tempfile.mkdtemp(), max_to_keep=1, best="accuracy") as checkpoints:
      ...   for step, accuracy in enumerate([0.5, 0.9, 0.8, 0.7]):
      ...     checkpoints.save(step, model, metrics={"accuracy": accuracy})
      >>> checkpoints.steps(), checkpoints.best_step()
      ([1, 3], 1)
    """

    def __init__(
        self,
        folder: Folder,
        *,
        max_to_keep: int | None = None,
        best: str | None = None,
        best_mode: Literal["max", "min"] = "max",
        compress: bool = False,
    ):
        if best_mode not in ("max", "min"):
            raise errors.ArgumentError(
                f"best_mode must be 'max' or 'min', not {best_mode!r}.", 'Pass "max" or "min".'
            )
        self._name = as_file_name(folder, "liftnn.save(folder, step, module)")
        self._folder = pathlib.Path(self._name).absolute()
        self._max_to_keep = as_max_to_keep(max_to_keep)
        self._best = best
        self._compress = compress
        self._sign = 1 if best_mode == "max" else -1
        self._manager: Manager | None = None
        self._is_entered = False

    def save(
        self,
        step: int,
        /,
        *modules: Any,
        values: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Save modules and plain values; within a `with` block, in the background. See `liftnn.save`.

        Args:
          step: The number of the checkpoint, as in `liftnn.save`.
          *modules: The modules.
          values: Plain values by name.
          metrics: Numbers by name.

        Raises:
          ArgumentError: If the step is not a non-negative integer or already exists; if the metric that `best` names is
            missing.
          CheckpointError: If the folder cannot be written, or if `max_to_keep` is given and a later step is there.
          ArgumentTypeError: If something cannot be saved.
          DonatedError: If the buffer of a Variable was donated.
        """
        saving = _load("saving")

        def prepare() -> Any:
            number = as_step(step, "save")
            self._check_metric(metrics or {})
            prepared = saving.describe_state(modules, values, metrics)
            _load("orbax").load_orbax()
            check_next(self._folder, number, self.steps(), self._max_to_keep, self._name)
            return number, *prepared

        with _lock:
            number, arrays, index = agree(
                "save", "save", prepare, lambda found: saving.describe_saved(*found)
            )
            if self._manager is None:
                agree("save", "save", lambda: make_folder(self._folder, self._name), lambda _: {})
                self._manager = _load_manager(self._folder, self._compress)
            self._manager.save(number, arrays, index)
            if not self._is_entered:
                self.close()

    def restore(self, *modules: Any, step: int | None = None, strict: bool = True) -> Restored:
        """Fill modules in place from a checkpoint; see `liftnn.restore`.

        Args:
          *modules: The modules; `...` skips one.
          step: The step, as in `liftnn.save`. The default, None, is the latest.
          strict: Whether to raise if something does not fit.

        Returns:
          What was read.

        Raises:
          ArgumentError: If the step is not a non-negative integer.
          CheckpointError: If there is no such checkpoint, if it is damaged, or if it does not fit.
          ArgumentTypeError: If an argument is not a module, a Variable or a State, or a tree of them.
        """
        chosen = agree("restore", "restore", lambda: self._choose(step), lambda chosen: {"step": str(chosen)})
        name = os.path.join(self._name, str(chosen))
        return _load("restoring").restore_step(self._folder / str(chosen), chosen, name, modules, strict)

    def _choose(self, step: int | None) -> int:
        """Return the step to restore."""
        check_path(self._folder, self._name, "read")
        number = None if step is None else as_step(step, "restore")
        steps = self.steps()
        if number is None and not steps:
            last = self._folder.name
            is_step = last.isdecimal() and int(last) in Checkpoints(self._folder.parent).steps()
            raise errors.CheckpointError(
                f"There is no checkpoint in the folder {self._name}.",
                f"It is the checkpoint of one step: pass the folder that contains it, and step={last}."
                if is_step
                else "Check the path; to start a new run if there is none, test `liftnn.saved_steps(folder)` first.",
            )
        if number is not None and number not in steps:
            raise errors.CheckpointError(
                f"The folder {self._name} has no checkpoint of step {number}; it has: "
                f"{', '.join(map(str, steps)) or 'none'}.",
                "Pass one of these steps.",
            )
        return steps[-1] if number is None else number

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, after waiting for one that is being saved.

        With several processes, process 0 removes old checkpoints; another one may still see one that is being
        removed.

        Returns:
          The steps in order.
        """
        with _lock:
            for x in filter(lambda x: _may_save(x, self._folder), dict.fromkeys((self, *_unclosed))):
                x.wait()
        return find_steps(self._folder)

    def best_step(self) -> int | None:
        """Return the step with the best value of the metric that `best` names.

        Returns:
          The step, the latest of equal ones; None if no checkpoint has the metric.

        Raises:
          ArgumentError: If `best` was not given.
        """
        if self._best is None:
            raise errors.ArgumentError(
                "best_step needs the name of a metric.", 'Write `Checkpoints(folder, best="accuracy")`.'
            )
        ranked = self._ranking.rank(self.steps())
        return ranked[-1] if ranked else None

    def wait(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
          Exception: Whatever the saving raised, such as an OSError because the disk is full.
          CheckpointError: If another process could not write its part.
        """
        with _lock:
            if self._manager is not None:
                self._manager.wait()
                self._remove_old()

    def close(self) -> None:
        """Wait until the last checkpoint is complete, and end the threads that saved it.

        Raises:
          Exception: Whatever the saving raised.
        """
        with _lock:
            if self._manager is None:
                return
            try:
                self.wait()
            finally:
                manager, self._manager = self._manager, None
                manager.close()

    def __enter__(self) -> Checkpoints:
        self._is_entered = True
        with _lock:
            _unclosed.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_entered = False
        self.close()
        with _lock:
            _unclosed.discard(self)

    def _check_metric(self, metrics: Mapping[str, float]) -> None:
        """Raise an error if the metric to compare is missing."""
        if self._best is not None and self._best not in metrics:
            raise errors.ArgumentError(
                f"The metric {self._best!r} is missing, which decides which checkpoints are kept.",
                f"Pass `metrics={{{self._best!r}: ...}}`.",
            )

    @functools.cached_property
    def _ranking(self) -> Ranking:
        return _load("ranking").Ranking(self._folder, self._best, self._sign)

    def _remove_old(self) -> None:
        """Remove the checkpoints that are not to be kept."""
        if self._manager is not None and self._max_to_keep is not None:
            self._manager.delete(self._ranking.find_old(self._max_to_keep))


publish(Checkpoints, restore, save, saved_steps)
