"""Wrong versions of right functions: one small change, proved wrong by running the tests plainly.

The functions are a data set's own solutions, so running their mutants in this process is safe but for endless loops,
which the clock ends.
"""

from __future__ import annotations

import ast
import copy
import signal
from collections.abc import Iterator
from typing import Any

__all__ = ["is_right", "mutants", "wrong_version"]

_SECONDS = 1.0
_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.Mult, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str, entry_point: str) -> Iterator[str]:
    """Yield versions of a program with one change in its function: a number off by one, an operator swapped, no value.

    Helpers that stand beside the function are left alone: tests that use them use their own copies.
    """
    tree = ast.parse(source)
    function = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == entry_point)
    inside = set(ast.walk(function))
    for place, node in enumerate(ast.walk(tree)):
        if node not in inside:
            continue
        for change in _changes(node):
            changed = copy.deepcopy(tree)
            change(list(ast.walk(changed))[place])
            if ast.dump(changed) != ast.dump(tree):
                yield ast.unparse(ast.fix_missing_locations(changed))
    # What no small change makes wrong, no value does.
    yield f"{source}\n\ndef {entry_point}(*arguments):\n    return None\n"


def _changes(node: ast.AST) -> Iterator[Any]:
    if isinstance(node, ast.Compare):
        yield lambda found: found.ops.__setitem__(0, _swapped(found.ops[0]))
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        yield lambda found: setattr(found, "op", _swapped(found.op))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield lambda found: setattr(found, "value", found.value + 1)
    if isinstance(node, ast.Return) and node.value is not None:
        yield lambda found: setattr(found, "value", ast.UnaryOp(ast.Not(), found.value))


def _swapped(operator: ast.AST) -> ast.AST:
    return _SWAPS.get(type(operator), type(operator))()


def is_right(source: str, tests: str) -> bool:
    """Return whether program and tests run to their end in one plain namespace, within a second."""

    def too_long(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        exec(f"{source}\n{tests}", {})
    except BaseException:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def wrong_version(source: str, entry_point: str, tests: str) -> str:
    """Return the first mutant that the tests prove wrong."""
    return next(mutant for mutant in mutants(source, entry_point) if not is_right(mutant, tests))
