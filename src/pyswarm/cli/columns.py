"""The column writer that every table and summary goes through (spec/cli-and-executor, section 5).

Lines hold cells separated by TAB; what follows the last TAB is no cell. A column is a run of consecutive lines that have a cell at that
position, so lines without a TAB separate independent blocks, and a line that ends in a TAB gets trailing blanks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Columns:
    """One width rule: a column is as wide as its longest cell plus `padding`, and at least `minimum` characters."""

    def __init__(self, minimum: int, padding: int) -> None:
        self._minimum = minimum
        self._padding = padding

    def text(self, lines: Iterable[str]) -> str:
        """The lines laid out, each ended by a newline."""
        rows = [line.split("\t") for line in lines]
        out: list[str] = []
        self._block(rows, [], out)
        return "".join(line + "\n" for line in out)

    def _block(self, rows: Sequence[list[str]], widths: list[int], out: list[str]) -> None:
        """Lay out rows whose first len(widths) cells are already measured."""
        column = len(widths)
        start = 0
        while start < len(rows):
            end = start
            if len(rows[start]) - 1 <= column:
                out.append(_padded(rows[start], widths))
                start += 1
                continue
            while end < len(rows) and len(rows[end]) - 1 > column:
                end += 1
            width = max(self._minimum, max(len(row[column]) for row in rows[start:end]) + self._padding)
            self._block(rows[start:end], [*widths, width], out)
            start = end


def _padded(row: list[str], widths: list[int]) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1]


LIST = Columns(0, 2)
"""`ls` of clusters, nodes, services, tasks, networks."""

WIDE_LIST = Columns(0, 4)
"""`ls` of secrets and configs."""

TASKS = Columns(4, 4)
"""The task table inside `inspect`."""

SUMMARY = Columns(8, 8)
"""The summaries of `inspect`."""


def table(columns: Columns, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its two heading lines, which are there even without rows."""
    dashes = ["-" * len(heading) for heading in headings]
    return columns.text("\t".join(_clean(cell) for cell in row) for row in [headings, dashes, *rows])


def entry(label: str, value: str) -> str:
    """A summary line `<label>: <value>` with the label as cell."""
    return f"{label}\t: {_clean(value)}"


def _clean(value: str) -> str:
    """A TAB inside a value would shift the columns; a blank reads the same."""
    return value.replace("\t", " ")
