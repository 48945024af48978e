"""The column writer."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.cli import columns
from pyswarm.cli.columns import Columns


def test_text_after_the_last_tab_is_no_cell() -> None:
    """Only cells are padded; a line that ends in a TAB gets trailing blanks. [cli 14]"""
    assert Columns(0, 2).text(["a\tlong\tx", "bbb\tc\t"]) == "a    long  x\nbbb  c     \n"


def test_a_line_without_cells_ends_the_block() -> None:
    """Blocks above and below a line without TAB have widths of their own."""
    assert Columns(8, 8).text(["ID\t: x", "heading:", "much longer\t: y"]) == "ID        : x\nheading:\nmuch longer        : y\n"


def test_a_column_is_a_run_of_lines() -> None:
    """A second column that only some lines have is measured over each run apart."""
    text = Columns(0, 1).text(["a\tb\tc", "a\t", "a\tlonger\tc"])
    assert text == "a b c\na \na longer c\n"


def test_minimum_width() -> None:
    """A column is never narrower than the minimum."""
    assert Columns(8, 1).text(["a\tb"]) == "a       b\n"


def test_table_has_headings_and_dashes() -> None:
    """The dashes are as long as the headings; a TAB inside a value does not make a cell."""
    assert columns.table(columns.LIST, ["ID", "Name"], [("1", "a\tb")]) == "ID  Name\n--  ----\n1   a b\n"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="ab \t", max_size=8), max_size=8))
def test_nothing_is_lost(lines: list[str]) -> None:
    """Apart from blanks every line keeps its text, and there are as many lines."""
    out = Columns(0, 2).text(lines).split("\n")
    assert [line.replace("\t", "").replace(" ", "") for line in lines] == [line.replace(" ", "") for line in out[:-1]]
