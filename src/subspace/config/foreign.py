"""Words of other packages for values of ours, wherever such files or groups are read."""

from __future__ import annotations

__all__ = ["SIDES"]

SIDES = {"std": "shorter", "reverse_std": "longer", "left": "left", "right": "right", "full": "both"}
"""`proj_type` of GaLore and all that follow it."""
