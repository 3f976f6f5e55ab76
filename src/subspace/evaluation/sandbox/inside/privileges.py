"""What a process gives up before it runs foreign code: limits, privileges, descriptors, system calls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Mapping

from . import filters
from .kernel import DIE_WITH_PARENT, DUMPABLE, NO_NEW_PRIVILEGES, StepError, call, libc, prctl
from .namespaces import become_nobody

__all__ = ["close_all_but", "confine", "protect_memory"]

_DROP_BOUNDING, _CLEAR_AMBIENT, _AMBIENT = 24, 4, 47
_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION = 0x20080522


def confine(limits: Mapping[str, int], *, isolated: bool, counted: bool) -> None:
    """Give up everything that a program under test has no use for; there is no way back.

    Args:
        limits: memory_bytes, cpu_seconds, file_bytes, open_files, processes.
        isolated: In namespaces of its own; if not, the filter of system calls also refuses what those would have kept
            away: the network, other processes, and every change of a file.
        counted: The limit of processes binds; if not, the filter refuses new ones.

    Raises:
        StepError: If a step is refused.
    """
    _limit(limits)
    _drop_bounds()
    if isolated:
        become_nobody()
    _drop_capabilities()
    prctl(NO_NEW_PRIVILEGES, 1)
    protect_memory()
    filters.install(strict=not isolated, processes=isolated and counted)


def protect_memory() -> None:
    """Keep other processes of the same user from reading this one, and end with its parent."""
    prctl(DUMPABLE, 0)
    prctl(DIE_WITH_PARENT, 9)


def close_all_but(*kept: int) -> None:
    """Close every descriptor but 0, 1, 2 and `kept`."""
    ends = sorted({*kept, 2})
    for low, high in zip(ends, [*ends[1:], 1 << 16], strict=True):
        os.closerange(low + 1, high)


def _limit(limits: Mapping[str, int]) -> None:
    values = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_STACK: 8 << 20,
    }
    for kind, value in values.items():
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _drop_bounds() -> None:
    for capability in range(64):
        with contextlib.suppress(StepError):  # beyond the last one, or already without the right to drop
            prctl(_DROP_BOUNDING, capability)
    with contextlib.suppress(StepError):
        prctl(_AMBIENT, _CLEAR_AMBIENT)


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    call("drop capabilities", "capset", header, (ctypes.c_uint32 * 6)())
    number = filters.number_of("keyctl")
    if number is not None:  # a session keyring may hold the user's secrets
        libc.syscall(number, _JOIN_SESSION_KEYRING, None)
