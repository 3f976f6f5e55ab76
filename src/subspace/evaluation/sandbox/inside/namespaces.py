"""Namespaces of its own: users, mounts, processes, network, IPC, host name; and a root that holds next to nothing.

    /<standard library>, /lib, /usr/lib ...   bound read-only: what `import` needs
    /dev/null /dev/zero /dev/random /dev/urandom
    /tmp                                      a small tmpfs, the only place to write; nothing can be executed there

There is no /proc, no /sys, no shell and no other program. Order matters: the id maps are written by a helper outside
the new user namespace, because only there root may map an id other than its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from .kernel import StepError, call

__all__ = ["become_nobody", "enter", "new_process_namespace"]

_INNER_ID = 1000
# An id that nobody has: limits on the number of processes bind it, as they never bind root. The second is for machines
# that know 16 bits of ids only.
_UNUSED_IDS = (2_000_000_000, 65_534)

_MAPPED_BOTH, _MAPPED_SELF = 10, 11

_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_IPC, _NEW_USERS = 0x20000, 0x4000000, 0x8000000, 0x10000000
_NEW_PROCESSES, _NEW_NETWORK = 0x20000000, 0x40000000

_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXECUTION = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
# statvfs(3) flag -> mount(2) flag; a bind that is mounted anew must keep what its source was mounted with
_KEPT = {1: 1, 2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}

_STAGES = ("/tmp", "/mnt", "/media", "/srv", "/run", "/var", "/opt", "/home", "/boot", "/sys")
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def enter(scratch_bytes: int) -> bool:
    """Move this process into new namespaces; its next child is process 1 of the new process namespace.

    Returns:
        Whether the kernel will count the processes made here: it counts everybody's but root's, and root of a namespace
        that knows no other id has none to become.

    Raises:
        StepError: At the first step that is refused.
    """
    counted = _new_users()
    with contextlib.suppress(OSError):  # no namespaces within this one: less of the kernel to attack
        _write("/proc/sys/user/max_user_namespaces", "0")
    call("sethostname", "sethostname", b"sandbox", 7)
    _new_root(scratch_bytes)
    return counted


def new_process_namespace() -> None:
    """Make the next child process 1 of a namespace within this one.

    Raises:
        StepError: If it is refused.
    """
    call("unshare processes", "unshare", _NEW_PROCESSES)


def become_nobody() -> None:
    """Give up the identity of root for the unused one, if root made the namespaces."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(_INNER_ID, _INNER_ID, _INNER_ID)
        os.setresuid(_INNER_ID, _INNER_ID, _INNER_ID)


def _new_users() -> bool:
    wake_read, wake = os.pipe()
    target, user = os.getpid(), os.geteuid()
    helper = os.fork()
    if helper == 0:
        os.close(wake)
        os.read(wake_read, 1)
        os._exit(_map_ids(target))
    os.close(wake_read)
    try:
        flags = _NEW_USERS | _NEW_MOUNTS | _NEW_PROCESSES | _NEW_NETWORK | _NEW_IPC | _NEW_HOST_NAME
        call("unshare", "unshare", flags)
    finally:
        os.close(wake)
        status = os.waitpid(helper, 0)[1]
    mapped = os.waitstatus_to_exitcode(status)
    if mapped not in (_MAPPED_BOTH, _MAPPED_SELF):
        raise StepError("map user ids", errno.EPERM)
    return mapped == _MAPPED_BOTH or user != 0


def _map_ids(target: int) -> int:
    """Write the id maps of a process: root and an id that nobody has, or this user alone; return which."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        for unused in _UNUSED_IDS:
            with contextlib.suppress(OSError):
                both = f"0 {{}} 1\n{_INNER_ID} {unused} 1\n"
                _write(f"/proc/{target}/uid_map", both.format(user))
                _write(f"/proc/{target}/gid_map", both.format(group))
                return _MAPPED_BOTH
    with contextlib.suppress(OSError):
        _write(f"/proc/{target}/setgroups", "deny")
        _write(f"/proc/{target}/uid_map", f"{_INNER_ID} {user} 1\n")
        _write(f"/proc/{target}/gid_map", f"{_INNER_ID} {group} 1\n")
        return _MAPPED_SELF
    return 1


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _new_root(scratch_bytes: int) -> None:
    sources = _sources()
    stage = next((place for place in _STAGES if os.path.isdir(place) and not _inside(place, sources)), None)
    if stage is None:
        raise StepError("find a place for the new root", errno.ENOENT)
    _mount("make mounts private", None, "/", None, _RECURSIVE | _PRIVATE)
    _mount("mount the new root", "tmpfs", stage, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,nr_inodes=2k,mode=755")
    for source in sources:
        _bind(source, stage + source)
    scratch = f"{stage}/tmp"
    os.makedirs(scratch, exist_ok=True)
    settings = f"size={scratch_bytes},nr_inodes=1k,mode=1777"
    _protect(stage)
    _mount("mount /tmp", "tmpfs", scratch, "tmpfs", _NO_SUID | _NO_DEVICES | _NO_EXECUTION, settings)
    os.chdir(stage)
    call("pivot_root", "pivot_root", b".", b".")
    call("leave the old root", "umount2", b".", _DETACH)
    os.chdir("/tmp")


def _inside(place: str, sources: list[str]) -> bool:
    return any(f"{source}/".startswith(f"{place}/") for source in sources)


def _sources() -> list[str]:
    """Return what the interpreter needs to import its standard library, none within another."""
    prefix = [f"{sys.base_prefix}/lib"] if sys.base_prefix not in ("/", "/usr", "/usr/local") else []
    wanted = [*_LIBRARIES, *prefix, *sys.path, "/etc/ld.so.cache", *_DEVICES]
    found = sorted({os.path.normpath(path) for path in wanted if path.startswith("/") and os.path.exists(path)})
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(f"bind {source}", source, target, None, _BIND | _RECURSIVE)


def _protect(stage: str) -> None:
    """Make every mount at and below `stage` read-only."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescaped(line.split(" ")[4]) for line in file]
    for point in sorted({point for point in points if f"{point}/".startswith(f"{stage}/")}, key=len, reverse=True):
        found = os.statvfs(point).f_flag
        kept = sum(flag for bit, flag in _KEPT.items() if found & bit)
        devices = _NO_EXECUTION if point.startswith(f"{stage}/dev/") else _NO_DEVICES
        _mount(f"protect {point}", None, point, None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | devices | kept)


def _unescaped(text: str) -> str:
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, sign)
    return text


def _mount(step: str, source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    raw = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    call(step, "mount", raw[0], raw[1], raw[2], flags, raw[3])
