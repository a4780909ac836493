"""Test that inserts which ignore conflicts do so on all unique keys."""

import re
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "markethall"


def test_inserts_that_ignore_conflicts_name_no_key() -> None:
    """ON CONFLICT with a target raises an error if the row conflicts on another unique key first.

    Two concurrent inserts of equal rows may conflict on any of their unique keys first, see
    "speculative insertion" in PostgreSQL's execIndexing.c. An insert that updates the existing row
    needs a target: there, the values of all other unique keys must be new in each insert.
    """
    arguments = {
        (str(path.relative_to(SOURCE)), argument)
        for path in SOURCE.rglob("*.py")
        for argument in re.findall(r"on_conflict_do_nothing\(([^)]*)\)", path.read_text())
    }

    assert {argument for _, argument in arguments} == {""}, arguments
