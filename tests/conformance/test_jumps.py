"""K-TX-10 on Python 3.13, where an interrupt at the end of some loops passes over the block that they stand in.

Its compiler leaves a jump back that stands under a condition (``while x:``, a comprehension with ``if``, a loop
that ends in ``if``) out of the blocks around it (python/cpython#130279), and interrupts are looked for right there:
``with lock:`` then leaves the lock locked, ``finally`` is not run. So no such jump stands in a block of ours, but in
functions that those call. Other versions have nothing to find.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

import lash_store

pytestmark = [pytest.mark.canonical("the code alone"), pytest.mark.layouts("the code alone")]

LIBRARY = Path(lash_store.__file__).parent
TOOLS = {"cli", "testing"}
"""What an interrupt ends: nobody goes on with it."""


def codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from codes_in(each)


def undoes(node: ast.AST) -> bool:
    """Whether something is done at its end, whatever comes."""
    if isinstance(node, ast.Try):
        caught = [ast.unparse(each.type) if each.type else "" for each in node.handlers]
        return bool(node.finalbody) or "BaseException" in caught
    return isinstance(node, (ast.With, ast.AsyncWith))


def blocks_of(source: str) -> list[range]:
    """The lines of each block, as far as they are of the function that it is in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if undoes(node):
            body: list[ast.stmt] = node.body  # type: ignore[attr-defined] # reason: those have one
            found.append(range(body[0].lineno, (body[-1].end_lineno or 0) + 1))
    return found


def uncovered_jumps(code: CodeType) -> Iterator[int]:
    """The lines of jumps back, out of a block into which they lead."""
    entries = list(getattr(dis.Bytecode(code), "exception_entries", ()))

    def is_covered(offset: int) -> bool:
        return any(each.start <= offset < each.end for each in entries)

    for each in dis.get_instructions(code):
        if each.opname == "JUMP_BACKWARD" and not is_covered(each.offset):
            assert each.positions is not None
            if is_covered(each.argval):
                yield each.positions.lineno or 0


def jumps_out_of_blocks(source: str, name: str) -> list[int]:
    blocks = blocks_of(source)
    found = []
    for code in codes_in(compile(source, name, "exec")):
        functions = [each for each in blocks if each.start >= code.co_firstlineno]
        if code.co_name not in ("<genexpr>", "<module>"):
            found += [at for at in uncovered_jumps(code) if any(at in each for each in functions)]
    return found


@pytest.mark.parametrize(
    "file",
    [
        each
        for each in sorted(LIBRARY.rglob("*.py"))
        if each.relative_to(LIBRARY).parts[0] not in TOOLS
    ],
    ids=lambda file: str(file.relative_to(LIBRARY)),
)
def test_k_tx_10_no_jump_leaves_its_block(file: Path) -> None:
    assert jumps_out_of_blocks(file.read_text("utf-8"), str(file)) == []
