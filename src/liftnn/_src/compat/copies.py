"""Copies of modules with other settings, with the arguments of Flax NNX for its modes."""

from __future__ import annotations

from liftnn._src.compat.modes import accept_modes
from liftnn._src.modules import copies

view = accept_modes(copies.view)
view_info = accept_modes(copies.view_info)
with_attributes = accept_modes(copies.with_attributes)
