"""Summarizes the comparisons of scenario logs at the end of a test run."""

from collections.abc import Iterable, Iterator

import pytest


def summary(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """Yield a line for each comparison, then a total; nothing if there was no comparison."""
    lines = differences = 0
    for report in reports:
        properties = dict(report.user_properties)
        if "lines_compared" in properties:
            lines += int(str(properties["lines_compared"]))
            differences += int(str(properties["differences"]))
            name = report.nodeid.rpartition("::")[2].removeprefix("test_")
            yield f"{name}: {_counts(properties['lines_compared'], properties['differences'])}"
    if lines:
        yield f"total: {_counts(lines, differences)}"


def _counts(lines: object, differences: object) -> str:
    return f"{int(str(lines)):,} lines compared, {differences} differences"
