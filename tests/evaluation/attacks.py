"""Programs that try to get out, to do harm, or to pass without being right.

Every one is called as `f(1)` and would pass by returning 2, which it does only if the wall it runs against has a hole;
else it says what it met. They are bounded, so that a hole found by a test costs nothing: at most 100 processes, 64 MB
of disk, and signals only to a process that the test started.

Names in capitals are filled in: PORT (a listener of the test), SECRET (a file of the test), VICTIM (a process of the
test), PART (the first part of a text that only the tests know), NAME (for processes, to find them again).
"""

from __future__ import annotations

__all__ = ["CHEATS", "HARM", "NAMED", "fill"]

NAMED = """
import ctypes
ctypes.CDLL(None).prctl(15, b"NAME", 0, 0, 0)
"""

# name: (program, kinds of failure that are a held wall)
HARM: dict[str, tuple[str, set[str]]] = {
    "network": (
        """
import socket
def f(x):
    met = []
    for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET6, ("::1", PORT)),
                            (socket.AF_UNIX, "\\0NAME"), (40, (2, PORT)), (16, (0, 0)), (17, ("lo", 0))):
        try:
            wire = socket.socket(family, socket.SOCK_RAW if family in (16, 17) else socket.SOCK_STREAM)
            wire.settimeout(0.5)
            wire.bind(address) if family in (16, 17) else wire.connect(address)
            return 2
        except OSError as error:
            met.append(f"{family}: {error.strerror}")
    raise RuntimeError("; ".join(met))
""",
        {"RuntimeError"},
    ),
    "fork bomb": (
        NAMED
        + """
import os, time
def fork():
    try:
        return os.fork()
    except OSError:
        # The old call, which the C library no longer uses.
        return ctypes.CDLL(None).syscall(57) if os.uname().machine == "x86_64" else -1
def f(x):
    made = 0
    for _ in range(100):
        found = fork()
        if found == 0:
            time.sleep(60)
            os._exit(0)
        made += found > 0
    if made >= 50:
        return 2
    raise RuntimeError(f"{made} children")
""",
        {"RuntimeError"},
    ),
    "thread bomb": (
        """
import threading, time
def f(x):
    for made in range(100):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return 2
""",
        {"RuntimeError"},
    ),
    "memory": ("def f(x):\n    return len(bytearray(4 << 30)) and 2", {"MemoryError"}),
    "memory of nobody": (
        """
import ctypes, mmap, os
def f(x):
    met = []
    for name, make in (("memfd", lambda: os.memfd_create("x")), ("shm", lambda: segment())):
        try:
            if make() >= 0:
                return 2
        except OSError as error:
            met.append(f"{name}: {error.strerror}")
    raise RuntimeError(met)
def segment():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.shmget(0, 1 << 20, 0o1600) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return 0
""",
        {"RuntimeError"},
    ),
    "disk": (
        """
def f(x):
    for number in range(8):
        with open(f"/tmp/big{number}", "wb") as file:
            for _ in range(8):
                file.write(bytes(1 << 20))
    return 2
""",
        {"OSError"},
    ),
    "many files": (
        """
import os
def f(x):
    for number in range(5000):
        os.close(os.open(f"/tmp/file{number}", os.O_CREAT | os.O_WRONLY))
    return 2
""",
        {"OSError"},
    ),
    "endless loop": ("def f(x):\n    while True:\n        pass", {"timeout"}),
    "loop in C": ("def f(x):\n    return sum(range(10 ** 14))", {"timeout"}),
    "sleep": ("import time\ndef f(x):\n    time.sleep(3600)\n    return 2", {"timeout"}),
    "waiting for input": ("def f(x):\n    return int(input() or 2)", {"EOFError"}),
    "exit of the process": ("import os\ndef f(x):\n    os._exit(0)", {"ended"}),
    "exit while loading": ("import os\nos._exit(0)", {"ended"}),
    "exit of Python": ("import sys\ndef f(x):\n    sys.exit(0)", {"SystemExit"}),
    "output flood": ("def f(x):\n    while True:\n        print('x' * 10000)", {"output"}),
    "output flood by write": (
        "import os\ndef f(x):\n    for _ in range(10000):\n        os.write(2, b'x' * 10000)\n    return 2",
        {"output"},
    ),
    "environment": (
        """
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None)
    raw = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    # What a process was started with stays behind its arguments in memory; write(2) stops where that ends.
    place, data = ctypes.c_void_p.in_dll(libc, "program_invocation_name").value, b""
    out, into = os.pipe()
    while libc.write(into, ctypes.c_void_p(place + len(data)), 64) == 64:
        data += os.read(out, 64)
    if os.environ or (raw and raw[0]) or b"CANARY" in data:
        return 2
    raise RuntimeError("nothing in it")
""",
        {"RuntimeError"},
    ),
    "other files": (
        """
import os
def f(x):
    met = []
    for path in ("SECRET", os.path.dirname("SECRET"), "/proc/1/environ", "/proc/self/cmdline", "/proc/self/mem",
                 "/etc/passwd", "/etc/hostname", "/root/.bashrc", "/root/.ssh", "/dev/mem", "/dev/vda", "/sys/kernel"):
        for way in (path, "/.." + path, "/proc/self/root" + path):
            try:
                os.listdir(way) if os.path.isdir(way) else open(way, "rb").read(1)
                met.append(way)
            except OSError:
                pass
    if met:
        return 2
    raise RuntimeError(sorted(os.listdir("/")))
""",
        {"RuntimeError"},
    ),
    "writing outside": (
        """
import os, sys
def f(x):
    met = []
    for folder in (os.path.dirname("SECRET"), "/", "/dev", "/usr/lib", os.path.dirname(os.__file__), "/var/tmp"):
        try:
            with open(os.path.join(folder, "NAME"), "w") as file:
                file.write("was here")
            return 2
        except OSError as error:
            met.append(f"{folder}: {error.strerror}")
    own = os.__file__
    for change in (lambda: os.remove("SECRET"), lambda: os.chmod(own, os.stat(own).st_mode), lambda: os.utime(own),
                   lambda: os.rename(own, own), lambda: os.open(own, os.O_WRONLY)):
        try:
            change()
            return 2
        except OSError as error:
            met.append(error.strerror)
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "symbolic and hard links": (
        """
import os
def f(x):
    met = []
    for make in (os.symlink, os.link):
        for target in ("SECRET", "/proc/self/root/SECRET", "../../../../SECRET"):
            try:
                make(target, "/tmp/link")
                open("/tmp/link", "a").write("was here")
                return 2
            except OSError as error:
                met.append(error.strerror)
            try:
                os.remove("/tmp/link")
            except OSError:
                pass
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "killing the parent": (
        """
import os, signal
def f(x):
    met = []
    for pid in (os.getppid() or VICTIM, VICTIM):
        try:
            os.kill(pid, signal.SIGKILL)
            return 2
        except OSError as error:
            met.append(error.strerror)
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "tracing": (
        """
import ctypes, os
def f(x):
    libc, met = ctypes.CDLL(None, use_errno=True), []
    buffer = ctypes.create_string_buffer(64)
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    here, there = Part(ctypes.addressof(buffer), 64), Part(id(os), 64)
    for pid in (os.getppid() or VICTIM, VICTIM):
        if libc.ptrace(16, pid, 0, 0) == 0:
            return 2
        met.append(os.strerror(ctypes.get_errno()))
        if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) >= 0:
            return 2
        met.append(os.strerror(ctypes.get_errno()))
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "new namespaces and mounts": (
        """
import ctypes, os
def f(x):
    libc, met = ctypes.CDLL(None, use_errno=True), []
    for name, arguments in (("unshare", (0x10000000,)), ("unshare", (0x20000,)), ("chroot", (b"/tmp",)),
                            ("mount", (b"none", b"/tmp", b"tmpfs", 0, None)), ("umount2", (b"/tmp", 2)),
                            ("sethostname", (b"x", 1)), ("setns", (0, 0))):
        if getattr(libc, name)(*arguments) == 0:
            return 2
        met.append(f"{name}: {os.strerror(ctypes.get_errno())}")
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "becoming root": (
        """
import os
def f(x):
    met = []
    for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.setreuid(0, 0)):
        try:
            change()
            return 2
        except OSError as error:
            met.append(error.strerror)
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "raising the limits": (
        """
import resource
def f(x):
    met = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
        try:
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            return 2
        except (OSError, ValueError) as error:
            met.append(str(error))
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "other programs": (
        """
import glob, os, shutil, subprocess, sys
def f(x):
    met = []
    loader = next(iter(glob.glob("/lib*/ld-linux*")), "/bin/true")
    for command in ("/bin/sh", "/usr/bin/env", sys.executable, loader, "/tmp/own"):
        try:
            shutil.copy(loader, "/tmp/own")
            os.chmod("/tmp/own", 0o755)
        except OSError as error:
            met.append(error.strerror)
        try:
            subprocess.run([command, "-c", "exit 0"], check=False)
            return 2
        except OSError as error:
            met.append(error.strerror)
    raise RuntimeError(met)
""",
        {"RuntimeError"},
    ),
    "staying behind": (
        NAMED
        + """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(60)
        os._exit(0)
    os.wait()
    raise RuntimeError("left a child of a child")
""",
        {"RuntimeError", "OSError", "PermissionError"},
    ),
    "deaf to signals": (
        NAMED
        + """
import signal
for number in range(1, 64):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
def f(x):
    while True:
        pass
""",
        {"timeout"},
    ),
}

CHEATS: dict[str, str] = {
    "equal to everything": """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __instancecheck__ = lambda self, *other: True
    def __hash__(self): return hash(2)
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __abs__ = __int__ = __index__ = __len__ = lambda self, *other: 0
    __class__ = int
def f(x): return Equal()
""",
    "an int that is equal to everything": """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return hash(2)
    def __reduce__(self): return (int, (2,))
def f(x): return Equal(7)
""",
    "a list that is equal to everything": """
class Equal(list):
    def __eq__(self, other): return True
    def __getitem__(self, key): return 2
    def __iter__(self): return iter([2])
def f(x): return Equal([7])
""",
    "other builtins": """
import builtins
for name in ("len", "abs", "isinstance", "all", "any", "sorted", "set", "sum", "str", "print", "AssertionError"):
    setattr(builtins, name, lambda *arguments: True)
def f(x): return 7
""",
    "no AssertionError": """
import builtins, sys
builtins.AssertionError = type("AssertionError", (BaseException,), {"__init__": lambda self, *a: None})
sys.excepthook = lambda *a: None
def f(x): return 7
""",
    "an assertion of its own": "def f(x):\n    raise AssertionError",
    "tracing the interpreter": """
import sys
def skip(frame, event, argument):
    try:
        frame.f_lineno = frame.f_lineno + 1
    except ValueError:
        pass
    return skip
sys.settrace(skip)
def f(x): return 7
""",
    "printing a verdict": """
def f(x):
    for text in ('{"nonce": ""}', "ready", "pass", '["value", 2]'):
        print(text, flush=True)
    return 7
""",
    "writing to every descriptor": """
import json, os
def f(x):
    texts = ['{"nonce": ""}\\n', "ready\\n"]
    frames = [len(t).to_bytes(4, "big") + t.encode() for t in ('["value",2]', '{"nonce":""}', '["value",{"handle":1}]')]
    for descriptor in range(64):
        for data in [*(text.encode() for text in texts), *frames]:
            try:
                os.write(descriptor, data)
            except OSError:
                pass
    return 7
""",
    "closing every descriptor": "import os\ndef f(x):\n    os.closerange(0, 100)\n    return 7",
    "reading every descriptor": """
import os
def f(x):
    for descriptor in range(64):
        try:
            os.set_blocking(descriptor, False)
            data = os.read(descriptor, 100000)
            if data:
                return 2
        except OSError:
            pass
    return 7
""",
    "importing the grader": """
import importlib, sys
def f(x):
    found = [name for name in sys.modules if name.partition(".")[0] in ("inside", "subspace")]
    for name in ("subspace", "subspace.evaluation.sandbox.runner", "inside", "inside.judge", "judge"):
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            pass
    if found or any("PART" in str(value) for value in vars(sys.modules["__main__"]).values()):
        return 2
    return 7
""",
    "looking for the nonce": """
import gc, re, sys
def f(x):
    whole = re.compile(b"PART[0-9a-f]{4}")  # what the tests hold; this program has the first part only
    frame = sys._getframe()
    while frame is not None:
        if whole.search(repr(frame.f_locals).encode()) or whole.search(repr(frame.f_globals).encode()):
            return 2
        for text in list(frame.f_locals.values()):
            if isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text):
                return 2
        frame = frame.f_back
    for thing in gc.get_objects():
        for held in gc.get_referents(thing):
            if isinstance(held, str) and whole.search(held.encode("utf-8", "replace")):
                return 2
            if isinstance(held, bytes) and whole.search(held):
                return 2
    try:
        if whole.search(open("/proc/self/cmdline", "rb").read()):
            return 2
    except OSError:
        pass
    return 7
""",
    "a thread that ends the process": """
import os, threading, time
def later():
    time.sleep(0.02)
    os._exit(0)
threading.Thread(target=later, daemon=True).start()
def f(x):
    time.sleep(1)
    return 7
""",
    "a signal handler": """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGCONT):
    signal.signal(number, lambda *_: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
def f(x):
    while True:
        pass
""",
    "answering twice after a fork": """
import os
def f(x):
    try:
        os.fork()
    except OSError:
        pass
    return 7
""",
    "an endless answer": "def f(x):\n    while True:\n        yield 7",
    "a huge answer": "def f(x):\n    return [0] * 10_000_000",
    "a deep answer": "def f(x):\n    found = 7\n    for _ in range(99_999):\n        found = [found]\n    return found",
    "an answer that contains itself": "def f(x):\n    found = []\n    found.append(found)\n    return found",
    "a number without end": "def f(x):\n    return 1 << 100_000_000",
    "an error that cannot be shown": """
class Odd(Exception):
    def __str__(self): raise self
    __repr__ = __str__
def f(x): raise Odd
""",
    "an error with a false name": """
class AssertionPassed(BaseException):
    __module__ = "builtins"
AssertionPassed.__name__ = "nonce\\x00\\n"
def f(x): raise AssertionPassed({"nonce": ""})
""",
    "interrupts": "def f(x):\n    raise KeyboardInterrupt",
    "a generator's end": "def f(x):\n    raise StopIteration(2)",
    "changing the argument": "def f(x):\n    x = 2\n    return x - 3",
    "an attribute that is called": """
class Fake:
    def __getattr__(self, name): return self
    def __call__(self, *arguments): return self
    def __iter__(self): return iter([2])
f = Fake()
""",
    "no such function": "g = 2",
    "not a function": "f = 2",
    "not Python": "def f(x) return 2",
    "null bytes": "def f(x):\n    return 2\0",
}


def fill(source: str, values: dict[str, object]) -> str:
    """Return a program with its names in capitals filled in."""
    for name, value in values.items():
        source = source.replace(name, str(value))
    return source
