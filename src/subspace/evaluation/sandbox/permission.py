"""Whether programs of a model may run here, and how well they are locked up.

Nothing runs without an `Isolation`, and only `permit` makes one.
"""

from __future__ import annotations

import errno
import functools
import os
from dataclasses import dataclass
from pathlib import Path

from subspace.core.errors import SecurityError

__all__ = ["Isolation", "missing_isolation", "permit"]

_EXECUTION_FLAG, _UNSANDBOXED_FLAG = "--allow-code-execution", "--i-accept-unsandboxed"


@dataclass(frozen=True, slots=True)
class Isolation:
    """Leave to run programs; made by `permit`.

    Attributes:
        namespaces: With users, mounts, processes and network of their own; else limits and a filter only.
    """

    namespaces: bool


def permit(*, allow_code_execution: bool, accept_unsandboxed: bool = False) -> Isolation:
    """Return the strongest isolation that this machine offers.

    Args:
        allow_code_execution: The caller has said that programs written by a model may run.
        accept_unsandboxed: The caller has said so even for a machine that denies namespaces.

    Raises:
        SecurityError: E-SEC-008 without the first; E-SEC-009 with the reason where namespaces are denied, without the
            second.
    """
    if not allow_code_execution:
        raise SecurityError(
            "E-SEC-008",
            where=_EXECUTION_FLAG,
            found="this task runs programs that a model wrote",
            expected="leave to do so",
            action=f"Read docs/code-execution.md, then give {_EXECUTION_FLAG}.",
        )
    missing = missing_isolation()
    if missing is None:
        return Isolation(namespaces=True)
    if not accept_unsandboxed:
        raise SecurityError(
            "E-SEC-009",
            where=_EXECUTION_FLAG,
            found=f"no sandbox here: {missing}",
            expected="Linux that lets this user make user, mount, process and network namespaces",
            action=f"Use such a machine, or give {_UNSANDBOXED_FLAG} where nothing can be lost.",
        )
    if os.name != "posix" or not Path("/proc/self").exists():
        raise SecurityError("E-SEC-009", where=_UNSANDBOXED_FLAG, found="not Linux", expected="Linux")
    return Isolation(namespaces=False)


@functools.cache
def missing_isolation() -> str | None:
    """Return why programs cannot be isolated here, or None if they can: found by doing it once."""
    from subspace.evaluation.sandbox.program import Program
    from subspace.evaluation.sandbox.runner import SetupFailure, run_once

    if not Path("/proc/self/ns").exists():
        return "not Linux, or /proc is not there"
    trial = Program("def f(x):\n    return x + 1\n", "assert f(1) == 2\n", ("f",))
    try:
        found = run_once(trial, Isolation(namespaces=True))
    except SetupFailure as failure:
        return _reason(failure.step, failure.number)
    return None if found.passed else f"a trial program ended as {found.error}: {found.message}"


def _reason(step: str, number: int) -> str:
    told = f"{step}: {os.strerror(number)}" if number else step
    hints = {
        "user.max_user_namespaces": "0",
        "kernel.unprivileged_userns_clone": "0",
        "kernel.apparmor_restrict_unprivileged_userns": "1",
    }
    for name, denying in hints.items():
        path = Path("/proc/sys", *name.split("."))
        if path.exists() and path.read_text().strip() == denying:
            return f"{told} (sysctl {name} is {denying})"
    if number in (errno.EPERM, errno.EACCES) and any(
        Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")
    ):
        return f"{told} (a container that denies them; docker: --security-opt seccomp=unconfined or --privileged)"
    return told
