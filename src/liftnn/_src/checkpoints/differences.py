"""What does not fit between a checkpoint and modules: missing, unexpected and different, each with both sides."""

from __future__ import annotations

from typing import Any, NamedTuple

from liftnn import errors
from liftnn._src.checkpoints.entries import describe
from liftnn._src.checkpoints.index import Index, Leaves
from liftnn._src.checkpoints.keys import CodedPath, encode_path, first_paths, outside_path, resolve, show_path
from liftnn._src.checkpoints.leaves import FlatModules, ModuleLeaf, flatten_value
from liftnn._src.checkpoints.targets import is_too_wide


class Comparison(NamedTuple):
    """The result of comparing a checkpoint with modules.

    Args:
      fitting: The leaves of the modules that fit, with their entries.
      missing: Lines for what the checkpoint does not have.
      unexpected: Lines for what only the checkpoint has.
      different: Lines for what differs in dtype, shape or kind, or in what is shared.
      too_wide: Lines for arrays of 64 bits while JAX has none.
    """

    fitting: list[tuple[ModuleLeaf, Leaves]]
    missing: list[str]
    unexpected: list[str]
    different: list[str]
    too_wide: list[str]

    @property
    def has_differences(self) -> bool:
        """Whether something does not fit."""
        return any((self.missing, self.unexpected, self.different, self.too_wide))


def compare(index: Index, modules: FlatModules, skipped: set[int]) -> Comparison:
    """Compare the entries of an index with the leaves of modules.

    Args:
      index: The index.
      modules: The flat modules.
      skipped: The positions of modules that are not wanted.

    Returns:
      What fits and what does not.
    """
    found = Comparison([], [], [], [], [])
    matched: dict[CodedPath, CodedPath] = {}
    saved_first, own_first = first_paths(index.shared), first_paths(modules.shared)
    for path, leaf in modules.leaves.items():
        saved = resolve(path, saved_first, index.leaves)
        if saved is None:
            found.missing.append(f"{show_path(path)}: {_describe_value(leaf.value)} in the module")
        elif saved in matched:
            found.different.append(_line(path, f"shared with {show_path(matched[saved])}", "separate"))
        elif (
            saved == path
            or not skipped.isdisjoint(saved[:1])
            or (saved not in modules.leaves and resolve(saved, own_first, modules.leaves) == path)
        ):
            matched[saved] = path  # the same path, or another one of an object that is shared on both sides
            lines = _compare_values(path, index.leaves[saved], leaf.value)
            too_wide = [] if lines else _find_too_wide(path, index.leaves[saved], leaf.value)
            found.different.extend(lines)
            found.too_wide.extend(too_wide)
            if not lines and not too_wide:
                found.fitting.append((leaf, index.leaves[saved]))
        else:
            found.different.append(_line(path, f"shared with {show_path(saved)}", "separate"))
    others = {paths[0]: paths[1:] for paths in index.shared}
    for first, leaves in index.leaves.items():
        path = outside_path(first, others, skipped)
        if first in matched or path is None:
            continue
        twin = resolve(path, own_first, modules.leaves)
        if twin is None:
            found.unexpected.append(f"{show_path(path)}: {_describe_leaves(leaves)} in the checkpoint")
        else:
            found.different.append(_line(path, "separate", f"shared with {show_path(twin)}"))
    return found


def _compare_values(path: CodedPath, saved: Leaves, value: Any) -> list[str]:
    """Return a line for each difference of one Variable or array leaf."""
    leaves = flatten_value(value)
    if saved is None or leaves is None:
        if saved is None and leaves is None:
            return []
        return [_line(path, _describe_leaves(saved), _describe_value(value))]
    present = {encode_path(at): x for at, x in leaves}
    lines: list[str] = []
    for at in {**saved, **present}:
        if at not in present or at not in saved:
            one = str(saved[at]) if at in saved else "nothing"
            lines.append(_line(path + at, one, describe(present[at]) if at in present else "nothing"))
        elif not saved[at].fits(present[at]):
            lines.append(_line(path + at, str(saved[at]), describe(present[at])))
    return lines


def _find_too_wide(path: CodedPath, saved: Leaves, value: Any) -> list[str]:
    """Return a line for each array of 64 bits that JAX does not have now, of one Variable or array leaf that fits."""
    leaves = [] if saved is None else flatten_value(value) or []
    entries = [(encode_path(at), target) for at, target in leaves]
    return [
        f"{show_path(path + at)}: {saved[at]} in the checkpoint, but jax_enable_x64 is off"
        for at, target in entries
        if saved is not None and is_too_wide(saved[at], target)
    ]


def _line(path: CodedPath, saved: str, present: str) -> str:
    return f"{show_path(path)}: {saved} in the checkpoint, {present} in the module"


def _describe_leaves(leaves: Leaves) -> str:
    return "Empty" if leaves is None else _joined({at: str(entry) for at, entry in leaves.items()})


def _describe_value(value: Any) -> str:
    leaves = flatten_value(value)
    return "Empty" if leaves is None else _joined({encode_path(at): describe(x) for at, x in leaves})


def _joined(texts: dict[CodedPath, str]) -> str:
    """Return the texts of the leaves of one value."""
    if list(texts) == [()]:
        return texts[()]
    inner = ", ".join(f"{show_path(at, '')}: {text}" for at, text in texts.items())
    return f"{{{inner}}}"


def mismatch(checkpoint: str, found: Comparison) -> errors.CheckpointError:
    """Return the error for a checkpoint that does not fit, with all paths.

    Args:
      checkpoint: The name of the checkpoint.
      found: The differences.

    Returns:
      The error.
    """
    lines = [f"The checkpoint {checkpoint} does not fit the modules:"]
    titles = ("missing in the checkpoint", "unexpected in the checkpoint", "different")
    different = [*found.different, *found.too_wide]
    for title, part in zip(titles, (found.missing, found.unexpected, different), strict=True):
        if part:
            lines += [f"{title}:", *(f"  {line}" for line in part)]
    remedy = (
        "Change the modules to fit what was saved, pass `...` in place of modules to skip, or pass `strict=False` to "
        "restore only what fits."
    )
    if found.too_wide:
        remedy = f'For arrays of 64 bits call `jax.config.update("jax_enable_x64", True)` first. {remedy}'
    return errors.CheckpointError("\n".join(lines), remedy)
