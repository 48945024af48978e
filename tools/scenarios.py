"""The table of the specification's scenarios and the tests that cover them.

`python -m tools.scenarios` writes tests/SCENARIOS.md; `--check` changes nothing and exits 1 when the table is stale or when a scenario has
neither a test nor a reason. A test names what it covers in brackets in its docstring: the area, then scenario numbers and ranges, as in
`[control 12]`, `[ca 1-5]`, `[dispatcher 9, 11; orchestration 4]`. `in part` behind a number says that the test covers only part of the
scenario. Numbers with a dot (sections) and `trap` or words are for the reader and not counted. tests/scenarios.toml gives the number of
scenarios of each area and the reasons for what is left out, wholly or in part.
"""

from __future__ import annotations

import argparse
import ast
import pathlib
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
REASONS = TESTS / "scenarios.toml"
TABLE = TESTS / "SCENARIOS.md"

BRACKET = re.compile(r"\[([a-z]+ [^\[\]]*)\]")
ITEM = re.compile(r"(\d+)(?:-(\d+))?( in part)?")
DEVIATION = "deliberate deviation"


@dataclass(slots=True)
class Area:
    """One specification: how many scenarios it has, and what is known about each number."""

    count: int
    tests: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    partial: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[int, str] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)

    def covered(self, number: int) -> list[str]:
        """Every test that names the scenario, those that cover it in part after the others."""
        return [*self.tests.get(number, []), *(f"{name} (in part)" for name in self.partial.get(number, []))]


def numbers(first: str, last: str | None) -> range:
    """The numbers of `12` or `3-5`."""
    return range(int(first), int(last or first) + 1)


def claims(docstring: str, areas: frozenset[str]) -> Iterator[tuple[str, int, bool]]:
    """(area, number, in part) for everything a docstring says it covers."""
    for bracket in BRACKET.finditer(docstring):
        for clause in bracket.group(1).split(";"):
            area, _, rest = clause.strip().partition(" ")
            if area not in areas:
                continue
            for item in rest.split(","):
                if match := ITEM.fullmatch(item.strip()):
                    for number in numbers(match.group(1), match.group(2)):
                        yield area, number, match.group(3) is not None


def docstrings(path: pathlib.Path, root: pathlib.Path) -> Iterator[tuple[str, str]]:
    """(name, docstring) of every test function of a file."""
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_"):
            yield f"{path.relative_to(root)}::{item.name}", " ".join((ast.get_docstring(item) or "").split())


def gather(reasons: dict[str, Any], tests: pathlib.Path = TESTS) -> tuple[dict[str, Area], list[str]]:
    """The areas with all tests and reasons, and what is wrong with single entries."""
    areas = {name: Area(count) for name, count in reasons["areas"].items()}
    faults: list[str] = []
    for path in sorted(tests.rglob("test_*.py")):
        for name, docstring in docstrings(path, tests):
            for area, number, partly in claims(docstring, frozenset(areas)):
                book = areas[area].partial if partly else areas[area].tests
                if name not in book[number]:
                    book[number].append(name)
    for kind in ("left_out", "partly"):
        for entry in reasons.get(kind, []):
            faults += note(areas, entry, kind)
    return areas, faults


def note(areas: dict[str, Area], entry: dict[str, str], kind: str) -> list[str]:
    """Book one entry of scenarios.toml; what is wrong with it."""
    area, faults = areas[entry["area"]], []
    book = area.left_out if kind == "left_out" else area.missing
    for item in entry["scenarios"].split(","):
        match = ITEM.fullmatch(item.strip())
        if match is None:
            faults.append(f"{REASONS.name}: {entry['area']} {item!r} is neither a number nor a range")
            continue
        for number in numbers(match.group(1), match.group(2)):
            if number in area.left_out or number in area.missing:
                faults.append(f"{entry['area']} {number} has two reasons")
            book[number] = entry["reason"]
    return faults


def judge(name: str, area: Area) -> list[str]:
    """What is wrong with an area's numbers."""
    known = sorted({*area.tests, *area.partial, *area.left_out, *area.missing})
    faults = [f"{name} {n} does not exist: {', '.join(area.covered(n)) or REASONS.name}" for n in known if not 1 <= n <= area.count]
    for number in range(1, area.count + 1):
        whole, some = area.tests.get(number), area.partial.get(number)
        reason, rest = area.left_out.get(number), area.missing.get(number)
        if not (whole or some or reason):
            faults.append(f"{name} {number} has neither a test nor a reason")
        if reason and (whole or some) and not reason.startswith(DEVIATION):
            faults.append(f"{name} {number} is left out ({reason}) and has a test: {', '.join(area.covered(number))}")
        if rest and not (whole or some):
            faults.append(f"{name} {number} is covered in part, says {REASONS.name}, but no test names it")
        if some and not whole and not rest and not reason:
            faults.append(f"{name} {number} is covered only in part, and nothing says what is missing: {', '.join(some)}")
    return faults


def rows(area: Area) -> Iterator[str]:
    """The table of an area; neighbours with the same text share a row."""
    start, previous = 1, ""
    for number in range(1, area.count + 2):
        text = "" if number > area.count else cell(area, number)
        if text != previous or number > area.count:
            if previous:
                yield f"| {start}{f'-{number - 1}' if number - 1 > start else ''} | {previous} |"
            start, previous = number, text


def tally(area: Area) -> tuple[int, int, int, int]:
    """How many scenarios are tested, tested as we do it on purpose, tested in part, left out."""
    tested = [n for n in range(1, area.count + 1) if area.covered(n)]
    noted = [area.missing.get(n) or area.left_out.get(n, "") for n in tested]
    differing = sum(reason.startswith(DEVIATION) for reason in noted)
    partly = sum(bool(reason) for reason in noted) - differing
    return len(tested) - differing - partly, differing, partly, area.count - len(tested)


def cell(area: Area, number: int) -> str:
    """What stands beside a scenario's number."""
    parts = [f"`{name}`" if not name.endswith(")") else f"`{name.partition(' ')[0]}` (in part)" for name in area.covered(number)]
    if reason := area.left_out.get(number):
        parts.append(reason)
    if rest := area.missing.get(number):
        parts.append(rest if rest.startswith(DEVIATION) else f"not covered: {rest}")
    return "<br>".join(parts) or "**nothing**"


def render(areas: dict[str, Area]) -> str:
    """The whole document."""
    lines = [
        "# Scenarios and their tests",
        "",
        "Written by `make scenarios` from the tests' docstrings and scenarios.toml: do not edit.",
        "",
    ]
    lines += ["| Area | Scenarios | Tested | Tested, other on purpose | Tested in part | Left out |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {area.count} | {' | '.join(map(str, tally(area)))} |" for name, area in areas.items()]
    for name, area in areas.items():
        lines += ["", f"## {name}", "", "| | Covered by, or why not |", "|---|---|", *rows(area)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the table, or judge it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the table is stale or has gaps")
    checking = parser.parse_args(arguments).check
    areas, faults = gather(tomllib.loads(REASONS.read_text()))
    for name, area in areas.items():
        faults += judge(name, area)
    text = render(areas)
    if not checking:
        TABLE.write_text(text)
    elif not TABLE.exists() or TABLE.read_text() != text:
        faults.append(f"{TABLE.relative_to(ROOT)} is stale: run `make scenarios`")
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
