"""Runs programs: starts a bare interpreter that walls itself in, and watches it from outside.

    pass = the judge inside has sent back a nonce that it got after the last line of the tests

The exit status says nothing: a program may end itself with 0.
"""

from __future__ import annotations

import compileall
import contextlib
import functools
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from subspace.core.errors import ResourceError
from subspace.evaluation.sandbox.permission import Isolation
from subspace.evaluation.sandbox.program import Execution, Limits, Program

__all__ = ["SetupFailure", "run_once", "run_program", "run_programs"]

_HERE = Path(__file__).resolve().parent
_START = "import sys; sys.path.append(sys.argv[1]); from inside.start import main; sys.path.pop(); main()"
_SETUP_SECONDS = 60.0  # a machine under load; a program's own clock starts after this
_END_SECONDS = 10.0
_LARGEST_VERDICT = 64 << 10
_ATTEMPTS = 3


class SetupFailure(Exception):  # noqa: N818 - told as E-SEC-009 or E-RES-004, never raised to a user
    """The walls could not be made: `step` was refused with errno `number` (0: it ended without a word)."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step, self.number = step, number


def run_programs(
    programs: Sequence[Program],
    isolation: Isolation,
    limits: Limits | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Execution]:
    """Run every program, `workers` at a time; results in order.

    Raises:
        ResourceError: E-RES-004 if the sandbox cannot be started any more.
    """
    found: list[Execution] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        running = [pool.submit(run_program, program, isolation, limits) for program in programs]
        try:
            for each in running:
                found.append(each.result())
                if progress is not None:
                    progress(len(found), len(programs))
        except BaseException:
            for each in running:
                each.cancel()
            raise
    return found


def run_program(program: Program, isolation: Isolation, limits: Limits | None = None) -> Execution:
    """Run one program and tell what came of it.

    Raises:
        ResourceError: E-RES-004 if the sandbox does not start (three times).
    """
    for attempt in range(_ATTEMPTS):
        try:
            return run_once(program, isolation, limits)
        except SetupFailure as failure:
            last = failure
            time.sleep(0.1 * attempt)
    raise ResourceError(
        "E-RES-004",
        where=f"sandbox, {last.step}",
        found=os.strerror(last.number) if last.number else "it ended without a word",
        action="Memory or processes may be short; run fewer programs at once.",
    )


def run_once(program: Program, isolation: Isolation, limits: Limits | None = None) -> Execution:
    """Run one program.

    Raises:
        SetupFailure: If the walls cannot be made.
    """
    nonce = secrets.token_hex(32)
    job = {name: getattr(program, name) for name in ("preamble", "tests", "names")} | {"program": program.source}
    with _started(isolation, limits or Limits()) as watch:
        watch.send(_frame(job) + _frame(nonce))
        return watch.until_verdict(nonce)


def _frame(message: Any) -> bytes:
    body = json.dumps(message).encode("ascii")
    return len(body).to_bytes(4, "big") + body


@contextlib.contextmanager
def _started(isolation: Isolation, limits: Limits) -> Iterator[_Watch]:
    _compile_once()
    output, printed = os.pipe()
    try:
        settings = {
            "isolated": isolation.namespaces,
            "scratch_bytes": limits.scratch_bytes,
            "output": printed,
            "parent": os.getpid(),
            "limits": {
                "memory_bytes": limits.memory_bytes,
                "cpu_seconds": int(limits.wall_seconds) + 2,
                "file_bytes": limits.scratch_bytes,
                "open_files": limits.num_open_files,
                "processes": limits.num_processes,
            },
        }
        process = subprocess.Popen(
            [_interpreter(), "-I", "-S", "-B", "-u", "-c", _START, str(_HERE), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[printed],
            env={},
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(printed)
    try:
        yield _Watch(process, output, limits)
    finally:
        _end(process)
        os.close(output)


def _interpreter() -> str:
    """Return the interpreter behind a virtual environment, whose own packages the sandbox must not see."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


@functools.cache
def _compile_once() -> None:
    compileall.compile_dir(_HERE / "inside", quiet=2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End everything inside: the starter kills the judge and waits for it, with which the kernel kills all else."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        with contextlib.suppress(OSError):
            stream.close()


class _Watch:
    """The outer end of the pipes of one job."""

    def __init__(self, process: subprocess.Popen[bytes], output: int, limits: Limits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._job, self._verdict, self._report = (
            each.fileno() for each in (process.stdin, process.stdout, process.stderr)
        )
        self._output, self._limits = output, limits
        self._read: dict[int, bytes] = {self._verdict: b"", self._report: b"", self._output: b""}
        self._to_send = b""
        self._selector = selectors.DefaultSelector()
        for descriptor in self._read:
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(self._job, False)

    def send(self, data: bytes) -> None:
        """Have `data` sent while the rest goes on."""
        self._to_send = data
        self._selector.register(self._job, selectors.EVENT_WRITE)

    def until_verdict(self, nonce: str) -> Execution:
        """Watch until there is a verdict, the clock has run out, or too much was printed."""
        with self._selector:
            ready = self._until(lambda: b"\n" in self._read[self._verdict], time.monotonic() + _SETUP_SECONDS)
            if ready is not None:
                raise self._failure()
            began = time.monotonic()
            stopped = self._until(lambda: self._read[self._verdict].count(b"\n") > 1, began + self._limits.wall_seconds)
            seconds = time.monotonic() - began
            self._drain()
        return self._execution(stopped, nonce, seconds)

    def _until(self, done: Callable[[], bool], deadline: float) -> str | None:
        """Move bytes until `done`; else return what stopped it: timeout, output or ended."""
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            for key, _ in self._selector.select(left):
                self._move(key.fd)
            if len(self._read[self._output]) > self._limits.output_bytes:
                return "output"
            if self._verdict not in self._selector.get_map() or len(self._read[self._verdict]) > _LARGEST_VERDICT:
                return None if done() else "ended"
        return None

    def _move(self, descriptor: int) -> None:
        try:
            if descriptor == self._job:
                self._to_send = self._to_send[os.write(descriptor, self._to_send) :]
                if not self._to_send:
                    self._selector.unregister(descriptor)
                return
            part = os.read(descriptor, 1 << 14)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._read[descriptor] = self._read.get(descriptor, b"") + part
        if not part:
            self._selector.unregister(descriptor)

    def _drain(self) -> None:
        """Take what has been printed and not been read; no more than the limit, whatever still comes."""
        while len(self._read[self._output]) <= self._limits.output_bytes:
            try:
                part = os.read(self._output, 1 << 14)
            except OSError:
                return
            if not part:
                return
            self._read[self._output] += part

    def _failure(self) -> SetupFailure:
        report = self._read[self._report]
        try:
            told = json.loads(report)
            return SetupFailure(str(told["step"]), int(told["number"]))
        except (ValueError, KeyError, TypeError):
            last = report.decode("utf-8", "replace").strip().rpartition("\n")[2]
            return SetupFailure(last[:300] or "start of the interpreter", 0)

    def _execution(self, stopped: str | None, nonce: str, seconds: float) -> Execution:
        output = self._read[self._output]
        printed = output[: self._limits.output_bytes].decode("utf-8", "replace")
        # Whoever prints more than allowed just before the verdict has done so all the same.
        if stopped in (None, "ended") and len(output) > self._limits.output_bytes:
            stopped = "output"
        if stopped == "timeout":
            return Execution("timeout", "timeout", f"after {self._limits.wall_seconds:g} s", printed, seconds)
        if stopped == "output":
            told = f"more than {self._limits.output_bytes} bytes"
            return Execution("fail", "output", told, printed, seconds)
        if stopped == "ended":
            return Execution("fail", "ended", "the judge ended without a verdict", printed, seconds)
        verdict = json.loads(self._read[self._verdict].split(b"\n")[1])
        if secrets.compare_digest(str(verdict.get("nonce", "")), nonce):
            return Execution("pass", None, "", printed, seconds)
        return Execution(
            "fail", str(verdict.get("error", "verdict")), str(verdict.get("message", "")), printed, seconds
        )
