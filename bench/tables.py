"""Formats tables, describes the machine, and writes results as JSON."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import isnan
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
Rows = Sequence[Sequence[str]]


def text(rows: Rows) -> str:
    """Format the rows for a terminal. Only the first and the last column are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_align(row, widths) for row in rows) + "\n"


def markdown(rows: Rows) -> str:
    """Format the rows as a Markdown table."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 2) + "---|"
    return "\n".join([head, rule, *rest]) + "\n"


def write(name: str, results: Mapping[str, object]) -> None:
    """Write results/NAME.json, with a description of the machine."""
    document = {"machine": machine(), **results}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(_without_nan(document), indent=2) + "\n")


def machine() -> dict[str, object]:
    """Return the time, a description of the machine, and the versions of the software."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("uvicorn", "fastapi", "sqlalchemy", "asyncpg")},
    }


def machine_line() -> str:
    return ", ".join(f"{name} {value}" for name, value in machine().items())


def number(value: float, digits: int) -> str:
    return "" if isnan(value) else f"{value:,.{digits}f}"


def _align(row: Iterable[str], widths: Sequence[int]) -> str:
    first, *middle, last = [
        (cell.ljust if index in (0, len(widths) - 1) else cell.rjust)(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join([first, *middle, last]).rstrip()


def _without_nan(value: object) -> object:
    """Replace NaN, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value
