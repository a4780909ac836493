"""Write the alert rules and the dashboard: `python -m scripts.monitoring.generate`.

With `--check`, print the files that are out of date.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.monitoring.alerts import alert_rules
from scripts.monitoring.dashboard import dashboard

FOLDER: Final = Path(__file__).parents[2] / "monitoring"
FILES: Final[dict[str, Callable[[], str]]] = {
    "alerts.yaml": alert_rules,
    "dashboard.json": dashboard,
}


def list_outdated() -> list[Path]:
    return [
        FOLDER / name
        for name, build in FILES.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != build()
    ]


def main(*, check: bool) -> int:
    outdated = list_outdated()
    for path in outdated:
        if not check:
            path.write_text(FILES[path.name]())
        print(f"{'out of date' if check else 'written'}: monitoring/{path.name}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
