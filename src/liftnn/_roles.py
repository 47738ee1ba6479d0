"""Which file has each role that lower layers ask for by `_src/lazy.py`."""

from liftnn._src.lazy import set_files


def assign() -> None:
    """Say so; `liftnn/__init__.py` calls it."""
    set_files(
        attribute_warnings="liftnn._src.modules.mistaken",
        foreign_names="liftnn._src.foreign_names.explain",
        module_text="liftnn._src.summary.module_text",
        notebook_forms="liftnn._src.summary.notebook",
        stable_names="liftnn._pickled",
        treescope_forms="liftnn._src.summary.treescope_parts",
    )
