"""What every section of a recipe has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

__all__ = ["Section", "Synonym", "conflict"]


@dataclass(frozen=True)
class Synonym:
    """A well-known foreign name of a key of ours.

    Attributes:
        key: Our key in the same section.
        values: Foreign value to our value; a value that is not listed passes unchanged.
    """

    key: str
    values: Mapping[Any, Any] = field(default_factory=dict)


class Section(BaseModel):
    """A frozen part of a recipe; unknown keys are errors, and the text under a field is its help.

    A room declares its own section beside the code that reads it, in a module that imports no torch.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    synonyms: ClassVar[Mapping[str, Synonym]] = {}
    """Foreign key to ours; the loader translates it and notes it once."""


def conflict(key: str, found: str, action: str = "") -> PydanticCustomError:
    """Return the error that a validator of a whole section raises; it is told at the place of `key`."""
    return PydanticCustomError("conflict", "{found}", {"key": key, "found": found, "action": action})
