"""Signatures and docstrings of optimizers that list every option with the class's own default.

Options travel as keywords through the classes and are checked in one place, `settings`; a person who asks
`help(GaLoreAdamW)` or an editor sees them all the same.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Iterable
from inspect import Parameter

from subspace.optim.refusals import REFUSALS
from subspace.optim.settings import CHOICES, ProjectionSettings

__all__ = ["describe", "entries"]

_ARGUMENTS = "Args"
_WIDTH = 100


def describe(kind: type, built_in: ProjectionSettings, explained_by: Iterable[type] = ()) -> None:
    """Give an optimizer class a `__signature__`, and a docstring whose `Args:` explain all of it.

    Args:
        kind: The class; its `__init__` hands unknown keywords on to those of its bases.
        built_in: Its default options.
        explained_by: Classes whose `Args:` explain arguments too, after those of the class and its bases.
    """
    options = dataclasses.asdict(built_in)
    keywords = [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in options.items()]
    parameters = [*_handed_on(kind), *keywords]
    kind.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect and help
    if kind.__doc__ is None:
        return  # python -OO
    own = entries(kind.__doc__, _ARGUMENTS)
    texts = {
        name: text for source in _sources(kind, explained_by) for name, text in entries(source, _ARGUMENTS).items()
    }
    texts |= entries(ProjectionSettings.__doc__ or "") | own
    texts |= {name: texts[name] + _choices(kind, name) for name in options}
    head, *rest = inspect.cleandoc(kind.__doc__).partition(f"\n\n{_ARGUMENTS}:\n")[::2]
    tail = [block for block in rest[0].split("\n\n")[1:] if block] if rest else []
    explained = [parameter.name for parameter in parameters if parameter.name in texts]
    listed = [_wrapped(f"{name}: {texts[name]}") for name in explained]
    kind.__doc__ = "\n\n".join([head, "\n".join([f"{_ARGUMENTS}:", *listed]), *tail])


def entries(doc: str, heading: str = "Attributes") -> dict[str, str]:
    """Return the entries under a heading of a docstring by name.

    >>> entries("What it is.\\n\\n    Args:\\n        lr: Learning\\n            rate.\\n        eps: Small.", "Args")
    {'lr': 'Learning rate.', 'eps': 'Small.'}
    """
    block = inspect.cleandoc(doc).partition(f"\n{heading}:\n")[2].split("\n\n")[0]
    found: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if not line.startswith(" " * 8):
            name, _, text = line.strip().partition(": ")
            found[name] = text
        else:
            found[name] += f" {line.strip()}"
    return found


def _sources(kind: type, explained_by: Iterable[type]) -> list[str]:
    """Return docstrings that may explain an argument, the nearest last."""
    return [source.__doc__ for source in (*reversed(kind.__mro__), *explained_by) if source.__doc__ is not None]


def _wrapped(entry: str) -> str:
    return textwrap.fill(entry, _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False)


def _handed_on(kind: type) -> list[Parameter]:
    """Return the parameters of `__init__`, and the keywords of its bases to which it hands on what it does not know."""
    found: dict[str, Parameter] = {}
    inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    for place, init in enumerate(inits):
        own = list(inspect.signature(init).parameters.values())[1:]
        more = [parameter for parameter in own if parameter.kind is Parameter.VAR_KEYWORD]
        for parameter in own:
            if parameter not in more and (place == 0 or parameter.kind is Parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not more:
            break
    return list(found.values())


def _choices(kind: type, name: str) -> str:
    """Return the values that a class takes for an option, as a sentence."""
    refused = {
        value
        for row in REFUSALS
        if row.key == name and row.optimizer in {base.__name__ for base in kind.__mro__}
        for value in row.values
    }
    values = [str(value) for value in CHOICES.get(name, ()) if value not in refused]
    return f" One of {', '.join(values)}." if len(values) > 1 else f" Only {values[0]}." if values else ""
