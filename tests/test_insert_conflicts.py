"""Test that repeatable inserts ignore a conflict on any unique key."""

import re
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "markethall"


def test_inserts_use_on_conflict_without_target() -> None:
    """Two concurrent inserts may conflict on another key first, which raises with a target.

    See "speculative insertion" in PostgreSQL's execIndexing.c.
    """
    named = {
        (str(path.relative_to(SOURCE)), key)
        for path in SOURCE.rglob("*.py")
        for key in re.findall(r"(?:index_elements|constraint)=\[?\"(\w+)", path.read_text())
    }

    assert named == set()
