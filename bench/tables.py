"""Tables for a terminal and for a page, the machine they come from, and the same as data."""

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
    """For a terminal: first and last column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows) + "\n"


def markdown(rows: Rows) -> str:
    """For a page."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 2) + "---|"
    return "\n".join([head, rule, *rest]) + "\n"


def write(name: str, found: Mapping[str, object]) -> None:
    """To results/NAME.json, with the machine."""
    whole = {"machine": machine(), **found}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(_plain(whole), indent=2) + "\n")


def machine() -> dict[str, object]:
    """Where this ran."""
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


def _aligned(row: Iterable[str], widths: Sequence[int]) -> str:
    first, *middle, last = [
        (cell.ljust if at in (0, len(widths) - 1) else cell.rjust)(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join([first, *middle, last]).rstrip()


def _plain(value: object) -> object:
    """NaN is no JSON: null instead."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and isnan(value) else value
