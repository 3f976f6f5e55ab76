"""What a program and its tests can say to each other, what they may use, and what comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from subspace.core.errors import ConfigError, ResourceError, SecurityError
from subspace.evaluation.sandbox import permission, runner
from subspace.evaluation.sandbox.inside import codec, filters
from subspace.evaluation.sandbox.permission import Isolation, missing_isolation, permit
from subspace.evaluation.sandbox.program import Execution, Limits, Program
from subspace.evaluation.sandbox.runner import SetupFailure, run_program, run_programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux")

PATIENT = Limits(wall_seconds=20)
SOURCE = Path(runner.__file__).resolve().parents[3]


@pytest.fixture(params=["namespaces", "plain"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    missing = missing_isolation() if request.param == "namespaces" else None
    if missing is not None:
        pytest.skip(f"namespaces are denied here: {missing}")
    return Isolation(namespaces=request.param == "namespaces")


def ran(isolation: Isolation, source: str, tests: str, *names: str, preamble: str = "") -> Execution:
    return run_program(Program(source, tests, names or ("f",), preamble), isolation, PATIENT)


def passes(isolation: Isolation, source: str, tests: str, *names: str, preamble: str = "") -> bool:
    found = ran(isolation, source, tests, *names, preamble=preamble)
    assert found.outcome in ("pass", "fail"), found
    return found.passed


VALUES = """
from decimal import Decimal
from fractions import Fraction
VALUES = [None, True, False, 0, -1, 2**53, -(2**200), 0.1, float("inf"), "", "\\u00e9\\ud800\\0", b"\\0\\xff",
          bytearray(b"x"), 1 - 2j, (), (1, [2, {3: (4,)}]), [], {}, {(1, 2): {"a"}, None: frozenset({1.5})}, set(),
          range(2, 9, 3), Decimal("1.10"), Fraction(1, 3)]
"""


def test_values_go_there_and_back(isolation: Isolation) -> None:
    tests = (
        "for value in VALUES:\n"
        "    there, back = f(value, named=value)\n"
        "    assert there == back == value and type(back) is type(value), value\n"
        "    assert str(back) == str(value)\n"
        "found = f(float('nan'))[0]\n"
        "assert found != found\n"
        "assert f(-0.0)[0].hex() == '-0x0.0p+0'\n"
    )
    assert passes(isolation, "def f(value, named=None):\n    return [value, named]", tests, preamble=VALUES)


def test_a_wrong_value_fails(isolation: Isolation) -> None:
    for wrong in ("1", "True", "[2]", "'2'", "None", "2.5", "(2,)", "{2}"):
        found = ran(isolation, f"def f(): return {wrong}", "assert f() == 2")
        assert (found.outcome, found.error) == ("fail", "AssertionError"), wrong


def test_kinds_of_plain_types_arrive_as_the_plain_type(isolation: Isolation) -> None:
    program = """
import collections, enum
Point = collections.namedtuple("Point", "x y")
class Colour(enum.IntEnum):
    RED = 3
def f():
    ordered = collections.OrderedDict(a=1)
    return [collections.Counter("aab"), Point(1, 2), Colour.RED, ordered, collections.defaultdict(list, {1: [2]})]
"""
    tests = (
        "found = f()\n"
        "assert found == [{'a': 2, 'b': 1}, (1, 2), 3, {'a': 1}, {1: [2]}]\n"
        "assert [type(each) for each in found] == [dict, tuple, int, dict, dict]\n"
    )
    assert passes(isolation, program, tests)


def test_arguments_changed_in_place_are_changed(isolation: Isolation) -> None:
    program = "def f(a, b, c, d):\n    a.sort(); b['x'] = 1; c.discard(1); d += b'!'\n"
    tests = (
        "a, b, c, d = [3, 1, 2], {}, {1, 2}, bytearray(b'?')\n"
        "same = a\n"
        "assert f(a, b, c, d) is None\n"
        "assert (a, b, c, d) == ([1, 2, 3], {'x': 1}, {2}, b'?!') and same is a\n"
    )
    assert passes(isolation, program, tests)


def test_objects_stay_where_they_are_and_can_be_used(isolation: Isolation) -> None:
    program = """
class Node:
    def __init__(self, value):
        self.value, self.left = value, None
    def depth(self):
        return 1 + (self.left.depth() if self.left else 0)
    def __len__(self): return 3
    def __getitem__(self, key): return key * 2
    def __str__(self): return f"node {self.value}"
def count(node): return node.depth()
def numbers(): yield from (1, 2, 3)
"""
    tests = """
root = Node(1)
root.left = Node(value=2)
root.left.left = Node(3)
assert count(root) == 3 and root.depth() == 3 and root.left.value == 2
assert root.left.left.left is None and root.left == root.left and root != root.left
assert len(root) == 3 and root[4] == 8 and str(root) == "node 1"
assert list(numbers()) == [1, 2, 3] and 2 in numbers() and 7 not in numbers()
assert sorted({root: 1, root.left: 2}.values()) == [1, 2]
"""
    assert passes(isolation, program, tests, "Node", "count", "numbers")


@pytest.mark.parametrize(
    "test", ["f() == 5", "f() < 5", "f() - 5 == 0", "abs(f()) == 5", "5 in f()", "f() is True", "bool(f()) is False"]
)
def test_an_object_decides_nothing(test: str, isolation: Isolation) -> None:
    program = """
class Yes:
    __eq__ = __lt__ = __gt__ = __contains__ = lambda self, *other: True
    __sub__ = __abs__ = lambda self, *other: 5
    __bool__ = lambda self: False
    __hash__ = None
def f(): return Yes()
"""
    assert ran(isolation, program, f"assert {test}").outcome == "fail"


def test_errors_arrive_as_their_nearest_builtin(isolation: Isolation) -> None:
    program = """
import json
class Own(KeyError): pass
def f(kind):
    if kind == "own": raise Own("text")
    if kind == "plain": raise ValueError("text", 2)
    if kind == "decode": b"\\xff".decode()
    json.loads("{")
"""
    tests = """
for kind, expected in (("own", KeyError), ("plain", ValueError), ("decode", UnicodeError), ("json", ValueError)):
    try:
        f(kind)
    except expected as error:
        assert kind in ("json", "decode") or "text" in str(error)
    else:
        raise AssertionError(kind)
"""
    found = ran(isolation, program, tests)
    assert found.passed, found
    found = ran(isolation, program, "f('own')")
    assert (found.outcome, found.error, found.message) == ("fail", "Own", "'text'")


def test_leaving_is_no_error_that_a_test_expects(isolation: Isolation) -> None:
    for caught in ("except Exception", "except BaseException"):
        tests = f"try:\n    f()\n{caught}:\n    pass\n"
        assert passes(isolation, "def f(): raise ValueError", tests)
        for way, kind in (("raise SystemExit(0)", "SystemExit"), ("raise KeyboardInterrupt", "KeyboardInterrupt")):
            assert ran(isolation, f"def f(): {way}", tests).error == kind
        assert ran(isolation, "import os\ndef f(): os._exit(0)", tests).error == "ended"


def test_the_preamble_is_the_tests_own(isolation: Isolation) -> None:
    """A helper that the prompt defines is not the program's to redefine; what both define is the program's if named."""
    program = "def helper(x): return 0\ndef f(x): return 7"
    preamble = "def helper(x): return x\ndef f(x): pass\n"
    assert ran(isolation, program, "assert helper(3) == f(3)", preamble=preamble).error == "AssertionError"
    assert passes(isolation, program, "assert helper(7) == f(3) and f(0) == 7", preamble=preamble)


def test_what_is_printed_comes_back(isolation: Isolation) -> None:
    found = ran(
        isolation, "import sys\nprint('one')\ndef f():\n    print('two', file=sys.stderr)", "print('zero')\nf()"
    )
    assert found.passed
    assert found.output == "one\nzero\ntwo\n"


def test_exactly_five_descriptors_and_no_other_process(isolation: Isolation) -> None:
    program = """
import os, stat
def f():
    found = []
    for number in range(4096):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        found.append((number, stat.S_ISFIFO(mode), stat.S_ISCHR(mode)))
    return found
"""
    tests = (
        "found = f()\n"
        "assert [each[0] for each in found][:3] == [0, 1, 2] and len(found) == 5, found\n"
        "assert [each[1:] for each in found] == [(False, True)] + [(True, False)] * 4, found\n"
    )
    assert passes(isolation, program, tests)


def test_a_test_that_hands_over_what_cannot_be_copied_says_so(isolation: Isolation) -> None:
    found = ran(isolation, "def f(g): return g(1)", "assert f(lambda x: x) == 1")
    assert (found.outcome, found.error) == ("fail", "unsendable")
    assert "function" in found.message


def test_the_usual_modules_can_be_imported(isolation: Isolation) -> None:
    program = (
        "import collections, datetime, decimal, functools, hashlib, heapq, itertools, json, math, random, re\n"
        "import statistics, string, typing, zlib, bisect, copy, dataclasses, operator, unicodedata, ctypes, threading\n"
        "def f():\n"
        "    threading.Thread(target=print, args=('hello',)).start()\n"
        "    return hashlib.md5(b'x').hexdigest()"
    )
    assert passes(isolation, program, "assert f() == '9dd4e461268c8034f5c8564e155c67a6'")


def test_a_scratch_folder_is_there_in_namespaces() -> None:
    if missing_isolation() is not None:
        pytest.skip(f"namespaces are denied here: {missing_isolation()}")
    program = "import tempfile\ndef f():\n    with tempfile.TemporaryFile() as file:\n        return file.write(b'12')"
    assert passes(Isolation(namespaces=True), program, "assert f() == 2")


def test_limits_bind_and_count_together(isolation: Isolation) -> None:
    limits = Limits(wall_seconds=0.5, output_bytes=100)
    sources = ["def f(): return 2", "def f(): return 3", "def f():\n    while 1: pass", "def f(): print('x' * 101)"]
    heard: list[tuple[int, int]] = []
    found = run_programs(
        [Program(source, "assert f() == 2", ("f",)) for source in sources],
        isolation,
        limits,
        workers=2,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert [each.outcome for each in found] == ["pass", "fail", "timeout", "fail"]
    assert [each.error for each in found] == [None, "AssertionError", "timeout", "output"]
    assert found[3].output == "x" * 100
    assert 0.5 <= found[2].seconds < 1.9
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wall_seconds", 0),
        ("wall_seconds", float("nan")),
        ("memory_bytes", 1),
        ("num_processes", 1),
        ("output_bytes", -1),
    ],
)
def test_limits_that_cannot_work_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"E-CFG-009.*{name}"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_nothing_runs_without_leave() -> None:
    with pytest.raises(SecurityError, match=r"E-SEC-008.*--allow-code-execution") as caught:
        permit(allow_code_execution=False, accept_unsandboxed=True)
    assert caught.value.exit_status == 8


def test_denied_namespaces_are_accepted_in_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permission, "missing_isolation", lambda: "unshare: Operation not permitted")
    with pytest.raises(SecurityError, match=r"E-SEC-009.*unshare.*--i-accept-unsandboxed") as caught:
        permit(allow_code_execution=True)
    assert caught.value.exit_status == 8
    assert permit(allow_code_execution=True, accept_unsandboxed=True) == Isolation(namespaces=False)
    monkeypatch.setattr(permission, "missing_isolation", lambda: None)
    assert permit(allow_code_execution=True, accept_unsandboxed=True) == Isolation(namespaces=True)


def test_a_sandbox_that_does_not_start_is_no_failed_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_START", "import sys; sys.exit('no room')")
    with pytest.raises(SetupFailure, match="no room"):
        runner.run_once(Program("", "", ()), Isolation(namespaces=False))
    with pytest.raises(ResourceError, match="E-RES-004"):
        run_program(Program("", "", ()), Isolation(namespaces=False))


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        ('{"nonce": "guessed"}', "verdict"), ('{"nonce": ""}', "verdict"), ("{}", "verdict"),
        ('{"error": "Odd"}', "Odd"), ("", "ended"), ("x" * 100_000, "ended"),
    ],
)  # fmt: skip
def test_only_the_nonce_is_a_pass(verdict: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    end = "\\n" if verdict and len(verdict) < 1000 else ""
    monkeypatch.setattr(runner, "_START", f"import sys; sys.stdout.write('ready\\n{verdict}{end}'); sys.stdout.flush()")
    found = runner.run_once(Program("", "", ()), Isolation(namespaces=False), PATIENT)
    assert (found.outcome, found.error) == ("fail", error)


def test_a_step_that_the_kernel_refuses_is_named(tmp_path: Path) -> None:
    """In a user namespace that may have none within, the machine denies what it denies others."""
    if os.getuid() != 0 or shutil.which("unshare") is None or missing_isolation() is not None:
        pytest.skip("needs root and namespaces")
    code = "from subspace.evaluation.sandbox.permission import missing_isolation; print(missing_isolation())"
    shell = f"echo 0 > /proc/sys/user/max_user_namespaces && {sys.executable} -c '{code}'"
    found = subprocess.run(["unshare", "-r", "sh", "-c", shell], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "unshare: No space left on device (sysctl user.max_user_namespaces is 0)"


PROBE = """
import json
from subspace.evaluation.sandbox.permission import Isolation
from subspace.evaluation.sandbox.program import Limits, Program
from subspace.evaluation.sandbox.runner import run_program
found = {}
for name, source in json.load(open(0)).items():
    each = run_program(Program(source, "assert f(1) == 2", ("f",)), Isolation(namespaces=True), Limits(wall_seconds=20))
    found[name] = [each.outcome, each.error, each.message]
print(json.dumps(found))
"""


@pytest.mark.parametrize("who", ["a user", "root of a namespace"])
def test_walls_hold_whoever_builds_them(who: str) -> None:
    from evaluation.attacks import HARM, fill

    if os.getuid() != 0 or shutil.which("setpriv") is None or missing_isolation() is not None:
        pytest.skip("needs root, setpriv and namespaces")
    names = ["fork bomb", "network", "writing outside", "killing the parent", "becoming root", "other files", "disk"]
    values = {"PORT": 9, "SECRET": "/root/private/secret", "VICTIM": 1 << 22, "NAME": "sbx", "PART": "x"}
    sources = {name: fill(HARM[name][0], values) for name in names} | {"right": "def f(x): return 2"}
    become = (
        ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "env", f"PYTHONPATH={SOURCE}"]
        if who == "a user"
        else ["unshare", "-r", "env", f"PYTHONPATH={SOURCE}"]
    )
    pythons = [python for python in (runner._interpreter(), "/usr/bin/python3") if Path(python).exists()]
    trial = "import subspace.evaluation.sandbox.runner"
    python = next(
        (each for each in pythons if not subprocess.run([*become, each, "-c", trial], capture_output=True).returncode),
        None,
    )
    if python is None:
        pytest.skip("no interpreter and source tree that this user may read")
    run = [*become, python, "-c", PROBE]
    done = subprocess.run(run, input=json.dumps(sources), capture_output=True, text=True, check=True, cwd="/")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("right")[0] == "pass"
    for name, (outcome, error, message) in found.items():
        assert outcome == "fail", name
        assert error in HARM[name][1], (name, error, message)


def test_frames_refuse_what_is_none() -> None:
    for damage in (b"", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\2{]", b"\0\0\0\5{}", b"\0\0\0\2\xff\xff"):
        out, into = os.pipe()
        os.write(into, damage)
        os.close(into)
        with pytest.raises(codec.ClosedError):
            codec.receive(out)
        os.close(out)
    for message in (
        {},
        {"x": 1, "y": 2},
        {"unknown": []},
        {"int": "z"},
        {"set": [[]]},
        {"bytes": "0"},
        {"complex": [1, 2, 3]},
    ):
        with pytest.raises(codec.ClosedError):
            codec.decode(message, lambda handle: handle)


def test_every_call_of_the_filter_has_a_number() -> None:
    tables = (filters._ALWAYS, filters._STRICT, filters._FORKS, filters._INSPECTED)
    for place, machine in enumerate(("x86_64", "aarch64")):
        numbers: dict[str, int] = {}
        for name, row in ((name, row) for table in tables for name, row in table.items()):
            if row[place] is not None:
                assert numbers.setdefault(name, row[place]) == row[place], (machine, name)
        assert len(set(numbers.values())) == len(numbers), machine
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no header of system calls to compare with")
    lines = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    known = {line[1].removeprefix("__NR_"): int(line[2]) for line in lines}
    for name, row in ((name, row) for table in tables for name, row in table.items()):
        assert known.get(name, row[0]) == row[0], name
