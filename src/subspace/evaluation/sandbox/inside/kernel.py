"""The few system calls that Python 3.11 does not offer, through the C library."""

from __future__ import annotations

import ctypes
import errno
from typing import Any

__all__ = ["DIE_WITH_PARENT", "DUMPABLE", "NO_NEW_PRIVILEGES", "SUBREAPER", "StepError", "call", "libc", "prctl"]

DIE_WITH_PARENT, DUMPABLE, SUBREAPER, NO_NEW_PRIVILEGES = 1, 4, 36, 38

libc = ctypes.CDLL(None, use_errno=True)


class StepError(Exception):
    """A step of the setup was refused; `step` names it, `number` is the errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step, self.number = step, number


def call(step: str, name: str, *arguments: Any) -> None:
    """Call a function of the C library whose negative result is a failure.

    Raises:
        StepError: If it fails, or the library has no such function.
    """
    function = getattr(libc, name, None)
    if function is None:
        raise StepError(step, errno.ENOSYS)
    if function(*arguments) < 0:
        raise StepError(step, ctypes.get_errno())


def prctl(option: int, value: int, more: Any = 0) -> None:
    """Set an attribute of this process.

    Raises:
        StepError: If it is refused.
    """
    last = ctypes.c_ulong(more) if isinstance(more, int) else more
    call(f"prctl {option}", "prctl", option, ctypes.c_ulong(value), last, ctypes.c_ulong(0), ctypes.c_ulong(0))
