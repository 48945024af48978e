"""Sizes of our own code, and a failure where one leaves its bounds.

Modules at most 800 lines, functions at most 80, classes at most 25 methods; at most one `type: ignore` per thousand lines.
"""

from __future__ import annotations

import ast
import pathlib
import statistics
import sys
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "pyswarm"
GENERATED = {SOURCE / "api" / "swarmkit", SOURCE / "api" / "private", SOURCE / "api" / "csi"}
MODULE_LINES, FUNCTION_LINES, CLASS_METHODS = 800, 80, 25
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(slots=True)
class Shape:
    """What was measured, and what is out of bounds."""

    modules: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    methods: list[int] = field(default_factory=list)
    ignores: int = 0
    breaches: list[str] = field(default_factory=list)

    def check(self, value: int, limit: int, what: str) -> None:
        """Note a value over its limit."""
        if value > limit:
            self.breaches.append(f"{what}: {value}, limit {limit}")

    def measure(self, path: pathlib.Path) -> None:
        """Add one module."""
        text = path.read_text()
        name = str(path.relative_to(ROOT))
        lines = text.count("\n")
        self.modules.append(lines)
        self.ignores += text.count("type: ignore")
        self.check(lines, MODULE_LINES, name)
        for item in ast.walk(ast.parse(text)):
            if isinstance(item, FUNCTIONS):
                size = (item.end_lineno or item.lineno) - item.lineno + 1
                self.functions.append(size)
                self.check(size, FUNCTION_LINES, f"{name}:{item.lineno} {item.name}")
            if isinstance(item, ast.ClassDef):
                count = sum(isinstance(x, FUNCTIONS) for x in item.body)
                self.methods.append(count)
                self.check(count, CLASS_METHODS, f"{name}:{item.lineno} {item.name}, methods")


def row(name: str, values: list[int]) -> str:
    """One line of the table."""
    ordered = sorted(values)
    return f"{name:10} {len(values):6} {statistics.median(ordered):8.0f} {ordered[len(ordered) * 9 // 10]:6} {ordered[-1]:6}"


def main() -> int:
    """Measure, print, judge."""
    shape = Shape()
    for path in sorted(SOURCE.rglob("*.py")):
        if not GENERATED & set(path.parents):
            shape.measure(path)
    total = sum(shape.modules)
    shape.check(shape.ignores, max(1, total // 1000), "type: ignore comments")
    print(f"{'':10} {'count':>6} {'median':>8} {'p90':>6} {'max':>6}")
    print(row("modules", shape.modules), row("functions", shape.functions), row("methods", shape.methods), sep="\n")
    print(f"{total} lines, {shape.ignores} type: ignore")
    print(*shape.breaches, sep="\n")
    return 1 if shape.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
