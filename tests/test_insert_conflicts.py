"""Test that idempotent inserts ignore conflicts on all unique keys."""

import re
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "markethall"


def test_inserts_use_on_conflict_without_target() -> None:
    """ON CONFLICT with a target raises an error if the row conflicts on another unique key first.

    Two concurrent inserts of equal rows may conflict on any of their unique keys first, see
    "speculative insertion" in PostgreSQL's execIndexing.c.
    """
    named = {
        (str(path.relative_to(SOURCE)), key)
        for path in SOURCE.rglob("*.py")
        for key in re.findall(r"(?:index_elements|constraint)=\[?\"(\w+)", path.read_text())
    }

    assert named == set()
