"""A filter of system calls (seccomp), in two strengths.

    always   what reaches into the kernel, other processes or memory that no limit counts: mounts, namespaces, tracing,
             keyrings, shared memory, io_uring, sockets other than IP and local ones; starting another program
    strict   for a process without namespaces, which would share the machine: also new processes, signals, every socket,
             every way to change a file

It is a second wall in namespaces and the only one without. A machine whose numbers are not here goes without.

References:
    Linux, Documentation/userspace-api/seccomp_filter.rst; syscall tables of x86_64 and of asm-generic (arm64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .kernel import StepError, prctl

__all__ = ["install", "is_known", "number_of"]

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# name: number on (x86_64, arm64)
_ALWAYS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "delete_module": (176, 106), "execve": (59, 221),
    "execveat": (322, 281), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425),
    "ioperm": (173, None), "iopl": (172, None), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "migrate_pages": (256, 238), "modify_ldt": (154, None), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "nfsservctl": (180, 42), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "process_madvise": (440, 440), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "reboot": (169, 142), "request_key": (249, 218), "semget": (64, 190), "setdomainname": (171, 162),
    "sethostname": (170, 161), "setns": (308, 268), "settimeofday": (164, 170), "shmat": (30, 196),
    "shmget": (29, 194), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58),
}  # fmt: skip
_STRICT: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None), "chown": (92, None), "creat": (85, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "fchown": (93, 55), "fchownat": (260, 54), "fremovexattr": (199, 16),
    "fsetxattr": (190, 7), "ftruncate": (77, 46), "futimesat": (261, None), "ioprio_set": (251, 30),
    "kill": (62, 129), "lchown": (94, None), "link": (86, None), "linkat": (265, 37), "lremovexattr": (198, 15),
    "lsetxattr": (189, 6), "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33),
    "openat2": (437, 437), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "prlimit64": (302, 261),
    "removexattr": (197, 14), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "rmdir": (84, None), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "setpriority": (141, 140), "setxattr": (188, 5), "socket": (41, 198),
    "socketpair": (53, 199), "symlink": (88, None), "symlinkat": (266, 36), "tgkill": (234, 131),
    "tkill": (200, 130), "truncate": (76, 45), "unlink": (87, None), "unlinkat": (263, 35), "utime": (132, None),
    "utimensat": (280, 88), "utimes": (235, None),
}  # fmt: skip
_FORKS: dict[str, tuple[int | None, int | None]] = {"fork": (57, None), "vfork": (58, None)}
_INSPECTED: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220), "clone3": (435, 435), "fcntl": (72, 25), "ioctl": (16, 29), "open": (2, None),
    "openat": (257, 56), "socket": (41, 198),
}  # fmt: skip

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000

_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag
_SAME_PROCESS = 0x10000  # CLONE_THREAD
_WRITING = 0x1 | 0x2 | 0x40 | 0x200  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC; O_TMPFILE needs one of the first two
_FAMILIES = (1, 2, 10)  # local, IPv4, IPv6
_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others by way of a descriptor
_TERMINALS = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP

Instruction = tuple[int, int, int, int]
_SECCOMP, _FILTER_MODE = 22, 2


def is_known() -> bool:
    """Return whether this machine's system calls can be filtered."""
    return os.uname().machine in _MACHINES and ctypes.sizeof(ctypes.c_void_p) == 8


def number_of(name: str) -> int | None:
    """Return the number of a system call on this machine, None if there is none."""
    if not is_known():
        return None
    return next((table[name] for table in (_ALWAYS, _STRICT, _FORKS, _INSPECTED) if name in table), (None, None))[
        _MACHINES[os.uname().machine][0]
    ]


def install(*, strict: bool, processes: bool) -> None:
    """Filter this process from now on; it must have given up new privileges.

    Args:
        strict: Refuse what would reach others on a shared machine, too.
        processes: Allow new processes.

    Raises:
        StepError: If the kernel refuses, or new processes can be kept away neither by it nor by us.
    """
    if not is_known():
        if not strict and not processes:
            raise StepError("limit the number of processes", errno.ENOSYS)
        return
    program = _program(strict, processes)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    described = Filter(len(program), ctypes.addressof(code))
    prctl(_SECCOMP, _FILTER_MODE, ctypes.byref(described))


def _program(strict: bool, processes: bool) -> list[Instruction]:
    found: list[Instruction] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, _MACHINES[os.uname().machine][1]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    refused = {**_ALWAYS, **(_STRICT if strict else {}), **({} if processes else _FORKS)}
    for name in refused:
        found += _on(number_of(name), [_fail(errno.EPERM)])
    found += _on(
        number_of("clone3"), [_fail(errno.ENOSYS)]
    )  # its flags cannot be seen; the library falls back to clone
    found += _on(number_of("clone"), _if_bits(0, _NEW_NAMESPACES, errno.EPERM))
    found += _on(number_of("ioctl"), _if_equal(1, _TERMINALS, errno.EPERM))
    if not processes:
        found += _on(number_of("clone"), _unless_bits(0, _SAME_PROCESS, errno.EPERM))
    if strict:
        found += _on(number_of("open"), _if_bits(1, _WRITING, errno.EROFS))
        found += _on(number_of("openat"), _if_bits(2, _WRITING, errno.EROFS))
        found += _on(number_of("fcntl"), _if_equal(1, _OWNERS, errno.EPERM))
    else:
        found += _on(number_of("socket"), _unless_equal(0, _FAMILIES, errno.EAFNOSUPPORT))
    return [*found, (_RETURN, 0, 0, _ALLOW)]


def _fail(number: int) -> Instruction:
    return (_RETURN, 0, 0, _FAIL | number)


def _on(number: int | None, body: list[Instruction]) -> list[Instruction]:
    """Run `body` where the loaded number is `number`; afterwards the number is loaded again."""
    if number is None:
        return []
    again = (_LOAD, 0, 0, _NUMBER_AT)
    return [(_EQUAL, 0, len(body) + 1, number), *body, again]


def _argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index)  # the low half: all that is looked at fits into 32 bits


def _if_bits(index: int, bits: int, number: int) -> list[Instruction]:
    return [_argument(index), (_ANY_BIT, 0, 1, bits), _fail(number)]


def _unless_bits(index: int, bits: int, number: int) -> list[Instruction]:
    return [_argument(index), (_ANY_BIT, 1, 0, bits), _fail(number)]


def _if_equal(index: int, values: tuple[int, ...], number: int) -> list[Instruction]:
    return [_argument(index), *(step for value in values for step in ((_EQUAL, 0, 1, value), _fail(number)))]


def _unless_equal(index: int, values: tuple[int, ...], number: int) -> list[Instruction]:
    jumps = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(index), *jumps, _fail(number)]
