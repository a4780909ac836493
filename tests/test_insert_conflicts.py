"""An insert that may be repeated clashes with its repetition on any unique key, not only on one."""

import re
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "markethall"


def test_inserts_use_on_conflict_without_target() -> None:
    """Two at once may meet on the other key first, and that would be an error.

    See "speculative insertion" in PostgreSQL's execIndexing.c.
    """
    named = {
        (str(path.relative_to(SOURCE)), key)
        for path in SOURCE.rglob("*.py")
        for key in re.findall(r"(?:index_elements|constraint)=\[?\"(\w+)", path.read_text())
    }

    assert named == set()
