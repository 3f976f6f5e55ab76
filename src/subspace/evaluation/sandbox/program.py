"""What is run, within which limits, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from subspace.core.errors import ConfigError

__all__ = ["Execution", "Limits", "Outcome", "Program"]

Outcome = Literal["pass", "fail", "timeout"]


@dataclass(frozen=True, slots=True)
class Program:
    """Code that nobody vouches for, and tests that somebody does.

    The two run in different processes: the tests call the program and get plain data back, so it cannot see what is
    expected of it. Arguments are copied; lists, dicts, sets and bytearrays that it changes in place are changed for the
    tests too.

    Attributes:
        source: The program under test.
        tests: Statements that raise unless the program is right.
        names: What of the program the tests may use; every other name is the tests' own or built in.
        preamble: Trusted code that runs before the tests, beside them (imports, helpers of the prompt).
    """

    source: str
    tests: str
    names: tuple[str, ...]
    preamble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use.

    Attributes:
        wall_seconds: From the moment that everything is set up.
        memory_bytes: Address space of each process.
        scratch_bytes: Size of /tmp and of any one file.
        output_bytes: What it may print before it is stopped.
        num_processes: Processes and threads, those of the sandbox (3) included.
        num_open_files: Descriptors of each process.
    """

    wall_seconds: float = 5.0
    memory_bytes: int = 512 << 20
    scratch_bytes: int = 16 << 20
    output_bytes: int = 64 << 10
    num_processes: int = 16
    num_open_files: int = 64

    def __post_init__(self) -> None:
        least = {"memory_bytes": 64 << 20, "num_processes": 4, "num_open_files": 16}
        for each in fields(self):
            value, low = getattr(self, each.name), least.get(each.name, 0)
            if not (math.isfinite(value) and value > 0 and value >= low):
                raise ConfigError(
                    "E-CFG-009",
                    where=f"sandbox limit {each.name}",
                    found=str(value),
                    expected=f"at least {low}" if low else "more than 0",
                )


@dataclass(frozen=True, slots=True)
class Execution:
    """What came of one program.

    Attributes:
        outcome: pass: every line of the tests ran; timeout: stopped by the clock; fail: all else.
        error: Kind of failure: the name of an exception, `ended` (it left or was killed), `output` (printed too much),
            `unsendable` (the tests hand over what cannot be copied), `timeout`; None for a pass.
        message: What goes with it; written by the program, so to be shown as text only.
        output: What program and tests printed.
        seconds: How long it ran.
    """

    outcome: Outcome
    error: str | None
    message: str
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every line of the tests ran."""
        return self.outcome == "pass"
