"""What the differential log has compared, at the end of a run."""

from collections.abc import Iterable, Iterator

import pytest


def summary(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """A line per log, and the sum; nothing when nothing was compared."""
    lines = differences = 0
    for report in reports:
        noted = dict(report.user_properties)
        if "lines_compared" in noted:
            lines += int(str(noted["lines_compared"]))
            differences += int(str(noted["differences"]))
            name = report.nodeid.rpartition("::")[2].removeprefix("test_")
            yield f"{name}: {_words(noted['lines_compared'], noted['differences'])}"
    if lines:
        yield f"in all: {_words(lines, differences)}"


def _words(lines: object, differences: object) -> str:
    return f"{int(str(lines)):,} lines compared, {differences} differences"
