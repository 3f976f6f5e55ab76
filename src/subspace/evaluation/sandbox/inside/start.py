"""The first process inside: makes the walls, starts judge and candidate, and ends them.

    starter        waits; SIGTERM from outside makes it end everything
      judge        process 1 of the namespace: holds the tests, writes the verdict
        candidate  process 1 of a namespace within: runs the program

When a process 1 ends, the kernel kills whatever is left in its namespace, and what is in there cannot see out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

from .candidate import serve
from .judge import judge
from .kernel import DIE_WITH_PARENT, SUBREAPER, StepError, prctl
from .namespaces import enter, new_process_namespace
from .privileges import close_all_but, confine
from .remote import Link

__all__ = ["main"]

_READY = b"ready\n"
_BROKEN = 71
_PATIENCE_SECONDS = 0.5  # between the end of a pipe and the end of its process


def main() -> NoReturn:
    """Run one job.

    `argv[2]` has the settings as JSON: isolated, scratch_bytes, limits, output (a descriptor), parent. Standard input
    brings the job, standard output takes `ready` and the verdict, standard error the step that failed.
    """
    settings = json.loads(sys.argv[2])
    child = [0]
    signal.signal(signal.SIGTERM, lambda *_: _end(child[0]))
    job, verdict, report = (os.dup(descriptor) for descriptor in (0, 1, 2))
    try:
        prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != settings["parent"]:
            os._exit(_BROKEN)
        _move_standard_streams(settings["output"])
        _offer_to_be_killed()
        if settings["isolated"]:
            settings["counted"] = enter(settings["scratch_bytes"])
        else:
            prctl(SUBREAPER, 1)
            settings["counted"] = False
            settings["limits"]["processes"] += _num_threads_of_user()
        child[0] = os.fork()
        if child[0] == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _judge(settings, job, verdict)
    except StepError as error:
        os.write(report, json.dumps({"step": error.step, "number": error.number}).encode())
        os._exit(_BROKEN)
    except OSError as error:
        os.write(report, json.dumps({"step": str(error.filename or "start"), "number": error.errno}).encode())
        os._exit(_BROKEN)
    for descriptor in (job, verdict, report, 1, 2):
        os.close(descriptor)
    os.waitpid(child[0], 0)
    if not settings["isolated"]:
        _end_descendants()
    os._exit(0)


def _move_standard_streams(output: int) -> None:
    """What a program prints goes to `output`; it reads nothing."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in (nothing, output):
        os.close(descriptor)


def _offer_to_be_killed() -> None:
    """Where memory runs out, the kernel shall end this process and its children, and nothing else."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _judge(settings: dict[str, Any], job: int, verdict: int) -> NoReturn:
    isolated = settings["isolated"]

    def give_up() -> None:
        confine(settings["limits"], isolated=isolated, counted=settings["counted"])

    os.setsid()
    asked, requests = os.pipe()
    answers, answered = os.pipe()
    if isolated:
        new_process_namespace()
    candidate = os.fork()
    if candidate == 0:
        os.setsid()
        close_all_but(asked, answered)
        give_up()
        with contextlib.suppress(BaseException):
            serve(asked, answered)
        os._exit(0)
    close_all_but(job, verdict, requests, answers)
    give_up()
    os.write(verdict, _READY)
    judge(job, verdict, Link(requests, answers), lambda: _farewell(candidate))
    os._exit(0)


def _farewell(candidate: int) -> str:
    """Say how the candidate has ended; it has closed its side, so it ends now or not at all."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (ended := os.waitpid(candidate, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            return "the program no longer answers"
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(ended[1])
    return f"the program ended by signal {-code}" if code < 0 else f"the program ended itself with status {code}"


def _end(child: int) -> NoReturn:
    if child:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    _end_descendants()
    os._exit(0)


def _end_descendants() -> None:
    """Kill what is left below this process; in namespaces that is nothing."""
    with contextlib.suppress(OSError):
        while True:
            parents = _parents()
            below = {os.getpid()}
            while found := {pid for pid, parent in parents.items() if parent in below} - below:
                below |= found
            for pid in below - {os.getpid()}:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, 0)[0]:
                    pass
            if below == {os.getpid()}:
                return


def _parents() -> dict[int, int]:
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
            found[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    return found


def _num_threads_of_user() -> int:
    """Return how many threads count against the limit of processes before anything of ours does."""
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                found += len(os.listdir(f"/proc/{name}/task"))
    return found
