"""The tool that sets scenarios against tests: it must notice what is missing, and what is claimed twice."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tools.scenarios import claims, gather, judge, render, tally

AREAS = frozenset({"cli", "store"})
WHAT = 'async def test_one() -> None:\n    """What is so.\n\n    [{}]\n    """\n'


def table(tmp_path: pathlib.Path, brackets: str, count: int = 5, **entries: list[dict[str, str]]) -> tuple[list[str], str, tuple[int, ...]]:
    """Faults, document and tally of one area, with one test that has these brackets."""
    (tmp_path / "deep").mkdir(exist_ok=True)
    (tmp_path / "deep" / "test_x.py").write_text(WHAT.format(brackets))
    reasons: dict[str, Any] = {"areas": {"cli": count}, **entries}
    areas, faults = gather(reasons, tmp_path)
    return faults + judge("cli", areas["cli"]), render(areas), tally(areas["cli"])


def reason(scenarios: str, why: str = "not supported yet") -> dict[str, str]:
    """An entry of the reasons' file."""
    return {"area": "cli", "scenarios": scenarios, "reason": why}


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("So. [cli 12]", [("cli", 12, False)]),
        ("So. [cli 1, 3-5] [store 2]", [("cli", 1, False), *(("cli", n, False) for n in (3, 4, 5)), ("store", 2, False)]),
        ("So. [cli 1 in part, 2; store 3-4 in part]", [("cli", 1, True), ("cli", 2, False), ("store", 3, True), ("store", 4, True)]),
        ("So [cli 7].", [("cli", 7, False)]),
        ("So. [cli 6.2] [cli trap 3] [store section 4] [other 5] [cli] [1, 2]", []),
        ("So. [cli 3, better]", [("cli", 3, False)]),
    ],
)
def test_brackets(docstring: str, expected: list[tuple[str, int, bool]]) -> None:
    """Numbers and ranges count; sections, traps, words and other brackets do not."""
    assert list(claims(docstring, AREAS)) == expected


def test_all_is_well(tmp_path: pathlib.Path) -> None:
    """A test or a reason for each number; equal neighbours share a row."""
    faults, text, counts = table(tmp_path, "cli 1, 2", left_out=[reason("3-5")])
    assert faults == []
    assert counts == (2, 0, 0, 3)
    assert "| 1-2 | `deep/test_x.py::test_one` |" in text
    assert "| 3-5 | not supported yet |" in text


def test_gaps(tmp_path: pathlib.Path) -> None:
    """A number with neither is an error."""
    faults, text, _ = table(tmp_path, "cli 1-4")
    assert faults == ["cli 5 has neither a test nor a reason"]
    assert "| 5 | **nothing** |" in text


def test_both(tmp_path: pathlib.Path) -> None:
    """A test for what is not supported is an error; for what is so on purpose it is not."""
    faults, _, _ = table(tmp_path, "cli 1-5", left_out=[reason("5")])
    assert faults == ["cli 5 is left out (not supported yet) and has a test: deep/test_x.py::test_one"]
    faults, _, counts = table(tmp_path, "cli 1-5", left_out=[reason("5", "deliberate deviation: one line")])
    assert (faults, counts) == ([], (4, 1, 0, 0))


def test_parts(tmp_path: pathlib.Path) -> None:
    """What is covered in part says what is missing, and what is said to be covered in part has a test."""
    faults, _, _ = table(tmp_path, "cli 1-4, 5 in part")
    assert faults == ["cli 5 is covered only in part, and nothing says what is missing: deep/test_x.py::test_one"]
    faults, text, counts = table(tmp_path, "cli 1-4, 5 in part", partly=[reason("5", "the rest")])
    assert (faults, counts) == ([], (4, 0, 1, 0))
    assert "| 5 | `deep/test_x.py::test_one` (in part)<br>not covered: the rest |" in text
    faults, _, _ = table(tmp_path, "cli 1-4", partly=[reason("5", "the rest")])
    assert faults == ["cli 5 has neither a test nor a reason", "cli 5 is covered in part, says scenarios.toml, but no test names it"]


def test_nonsense(tmp_path: pathlib.Path) -> None:
    """Numbers that do not exist, entries that are none, and two reasons are named."""
    faults, _, _ = table(tmp_path, "cli 1-6", left_out=[reason("x"), reason("9", "a"), reason("9", "b")])
    assert "scenarios.toml: cli 'x' is neither a number nor a range" in faults
    assert "cli 9 has two reasons" in faults
    assert "cli 6 does not exist: deep/test_x.py::test_one" in faults
    assert "cli 9 does not exist: scenarios.toml" in faults
