"""`check_replicas`: whether all processes hold the same model; if not, the message names the paths."""

from __future__ import annotations

from typing import Any

from liftnn._src.publish import publish
from liftnn._src.sharding.agreement import agree
from liftnn._src.sharding.descriptions import describe_modules
from liftnn._src.tracebacks import boundary


@boundary
def check_replicas(*modules: Any) -> None:
    """Check that all processes of `jax.distributed` hold the same modules.

    Structure, classes, metadata, static attributes, shapes, dtypes and shardings are compared, and the contents of
    arrays that each process holds as a whole, among them the keys and counts of random streams. The contents of arrays
    that are sharded over processes are not compared: each process has its own part. All processes must call it at the
    same point, for example after they have created the model. With one process it does nothing.

    Args:
      *modules: Modules, or trees of them. Each process passes its own.

    Raises:
      StructureError: If a process differs from the first one; raised in all of them. The message has the paths, and
        what each process has there.

    Example:
      >>> import liftnn
      >>> liftnn.check_replicas(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    """
    tree = modules if len(modules) > 1 else modules[0] if modules else ()
    agree("check_replicas", "hold", lambda: tree, describe_modules)


publish(check_replicas)
