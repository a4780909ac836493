"""Print the table of docs/sizing.md from the results of a complete run.

`.venv/bin/python -m bench.sizing`, after `.venv/bin/python -m bench app`.
"""

import json
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results" / "latest.json"
# the load at which a process is sized: busy, but not overloaded
CONCURRENCY: Final = frozenset({8, 16})


def sizing_rows(results: dict[str, Any]) -> str:
    """Return one row for each kind of request."""
    rows = [
        "| requests | per second of processor time | statements | p50 | p99 |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {figure['name']} | {figure['per_cpu_second']:,.0f} | {figure['statements']:.0f} "
        f"| {figure['p50_ms']:.0f} ms | {figure['p99_ms']:.0f} ms |"
        for figure in results["figures"]
        if figure["concurrency"] in CONCURRENCY and figure["statements"] is not None
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text())
    print(json.dumps(found["machine"]))
    print(sizing_rows(found))
