"""Nothing that a program does harms the machine or earns it a pass."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluation.attacks import CHEATS, HARM, NAMED, fill
from subspace.evaluation.sandbox.permission import Isolation, missing_isolation
from subspace.evaluation.sandbox.program import Execution, Limits, Program
from subspace.evaluation.sandbox.runner import run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux")

LIMITS = Limits(wall_seconds=1.0)
PATIENT = Limits(wall_seconds=20)  # for attacks that end by themselves, on a machine under load
# Without namespaces the files that the user can read can be read; all else must hold.
ALSO_PLAIN = [name for name in HARM if name not in ("other files", "disk", "many files", "becoming root")]


@dataclass
class Machine:
    """What of this machine an attack is let loose on."""

    secret: Path
    listener: socket.socket
    victim: subprocess.Popen[bytes]
    name: str
    marker: str

    @property
    def values(self) -> dict[str, object]:
        return {
            "PORT": self.listener.getsockname()[1],
            "SECRET": self.secret,
            "VICTIM": self.victim.pid,
            "PART": self.marker[:-4],
            "NAME": self.name,
        }

    def left_behind(self) -> list[str]:
        found = []
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                if comm.read_text().strip() == self.name:
                    found.append(comm.parent.name)
            except OSError:
                pass
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("CANARY", "a token")
    secret = tmp_path / "secret"
    secret.write_text("of the user")
    name = f"sbx{secrets.token_hex(4)}"
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as local:
        listener.setblocking(False)
        local.bind(f"\0{name}")
        local.listen()
        victim = subprocess.Popen(["sleep", "120"])
        try:
            yield Machine(secret, listener, victim, name, f"m{secrets.token_hex(8)}")
        finally:
            victim.kill()
            victim.wait()


@pytest.fixture(scope="session")
def locked() -> Isolation:
    missing = missing_isolation()
    if missing is not None:
        pytest.skip(f"namespaces are denied here: {missing}")
    return Isolation(namespaces=True)


def unharmed(machine: Machine) -> None:
    assert machine.secret.read_text() == "of the user"
    assert [path.name for path in machine.secret.parent.iterdir()] == ["secret"]
    assert machine.victim.poll() is None
    with pytest.raises(BlockingIOError):
        machine.listener.accept()
    assert not (Path("/") / machine.name).exists()
    assert machine.left_behind() == []


def attack(source: str, machine: Machine, isolation: Isolation, limits: Limits) -> Execution:
    # The marker stands in the tests, which the program must not be able to see.
    tests = f"'{machine.marker}'\nassert f(1) == 2\n"
    return run_program(Program(fill(source, machine.values), tests, ("f",)), isolation, limits)


@pytest.mark.parametrize("name", HARM)
def test_no_harm_is_done(name: str, machine: Machine, locked: Isolation) -> None:
    source, kinds = HARM[name]
    began = time.monotonic()
    found = attack(source, machine, locked, LIMITS if "timeout" in kinds else PATIENT)
    assert found.outcome == ("timeout" if "timeout" in kinds else "fail"), found
    assert found.error in kinds, found
    assert time.monotonic() - began < 30
    assert len(found.output) <= LIMITS.output_bytes
    unharmed(machine)


@pytest.mark.parametrize("name", CHEATS)
def test_no_pass_is_stolen(name: str, machine: Machine, locked: Isolation) -> None:
    found = attack(CHEATS[name], machine, locked, LIMITS)
    assert found.outcome != "pass", found
    assert machine.left_behind() == []


@pytest.mark.parametrize("name", ALSO_PLAIN)
def test_without_namespaces_the_filter_holds(name: str, machine: Machine) -> None:
    from subspace.evaluation.sandbox.inside import filters

    if not filters.is_known():
        pytest.skip(f"no table of system calls for {os.uname().machine}")
    source, kinds = HARM[name]
    found = attack(source, machine, Isolation(namespaces=False), LIMITS if "timeout" in kinds else PATIENT)
    assert found.outcome == ("timeout" if "timeout" in kinds else "fail"), found
    assert found.error in kinds, found
    unharmed(machine)


@pytest.mark.parametrize("name", ["writing to every descriptor", "looking for the nonce", "importing the grader"])
def test_without_namespaces_no_pass_is_stolen(name: str, machine: Machine) -> None:
    assert not attack(CHEATS[name], machine, Isolation(namespaces=False), LIMITS).passed


@pytest.mark.parametrize("name", ["network", "other files", "environment", "writing outside", "killing the parent"])
def test_the_attack_works_where_there_is_no_wall(name: str, machine: Machine) -> None:
    """An attack that cannot succeed anywhere proves nothing, so here it is let loose on what the test made for it."""
    # The process that it would end first is its parent, which here is this one.
    source = fill(HARM[name][0], machine.values).replace("os.getppid() or ", "")
    done = subprocess.run([sys.executable, "-c", f"{source}\nimport sys\nsys.exit(f(1))\n"], capture_output=True)
    assert done.returncode == 2, done.stderr.decode()


def test_the_marker_would_be_found(machine: Machine, locked: Isolation) -> None:
    """The search for the nonce finds what is there to find: a text in the program's own memory."""
    source = CHEATS["looking for the nonce"] + "\nheld = {'tests': 'PART' + 'abcd'}\n"
    assert attack(source, machine, locked, PATIENT).passed


def test_an_end_from_outside_leaves_nothing(machine: Machine, locked: Isolation) -> None:
    """The caller is killed in the middle of a program: everything inside ends with it."""
    program = NAMED + "import os, time\ndef f(x):\n    os.fork()\n    time.sleep(60)\n"
    code = (
        "from subspace.evaluation.sandbox.permission import Isolation\n"
        "from subspace.evaluation.sandbox.program import Limits, Program\n"
        "from subspace.evaluation.sandbox.runner import run_program\n"
        f"program = Program({fill(program, machine.values)!r}, 'f(1)', ('f',))\n"
        "run_program(program, Isolation(namespaces=True), Limits(wall_seconds=60))\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while len(machine.left_behind()) < 2:
            assert time.monotonic() < deadline
            assert caller.poll() is None
            time.sleep(0.05)
    finally:
        caller.kill()
        caller.wait()
    deadline = time.monotonic() + 10
    while machine.left_behind():
        assert time.monotonic() < deadline, "processes outlive their caller"
        time.sleep(0.05)
