"""`subspace.yaml` beside foreign results: what their files do not tell, stated by who has them.

    data: {source: meta-math/MetaMathQA}
    method: {name: lora}
    training: {seed: 3}

It has the sections of a recipe and counts for every result in its folder, over what the files themselves say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["STATED_FILE", "read_stated"]

STATED_FILE = "subspace.yaml"
_SECTIONS = ("model", "data", "method", "training")


def read_stated(folder: Path, notes: list[str]) -> dict[str, Any]:
    """Return the sections of `subspace.yaml` in a folder; what is no section is named in a note."""
    import yaml

    path = folder / STATED_FILE
    try:
        found = yaml.safe_load(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        notes.append(f"{STATED_FILE} is not readable ({(str(error).splitlines() or ['damaged'])[0]})")
        return {}
    if not isinstance(found, dict):
        notes.append(f"{STATED_FILE} is not a mapping")
        return {}
    unknown = [str(key) for key, value in found.items() if key not in _SECTIONS or not isinstance(value, dict)]
    if unknown:
        notes.append(f"{STATED_FILE}: {', '.join(unknown)} ignored; its sections are {', '.join(_SECTIONS)}")
    return {key: value for key, value in found.items() if key in _SECTIONS and isinstance(value, dict)}
