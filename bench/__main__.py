"""`python -m bench`: measure, print the table, write bench/results/latest.json."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import asyncpg

from .report import Report
from .suite import STOPPING, Options, Suite


def main() -> int:
    """0 when every answer was a good one; a missed goal is a figure, not a failure."""
    arguments = _parser().parse_args()
    options = _options(arguments)
    _end_in_order()
    report = Report(options={**asdict(options), "database_url": bool(options.database_url)})
    with _folder(arguments.data_dir) as folder:
        problem = _run(options, folder, report)
    print(report.text())
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown())
    if problem:
        print(f"stopped early: {problem}", file=sys.stderr)
    else:
        report.write()
    return 1 if problem or report.failures else 0


def _run(options: Options, folder: Path, report: Report) -> str:
    """The reason the run ended early; empty when it did not."""
    try:
        Suite(options, folder, report).run()
    except (RuntimeError, OSError, ImportError, asyncpg.PostgresError) as problem:
        return f"{type(problem).__name__}: {problem}"
    except KeyboardInterrupt:
        return "interrupted"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 s phases, 16 at once: a smoke test")
    parser.add_argument("--seconds", type=float, default=4, help="measured time of a phase")
    parser.add_argument("--warmup", type=float, default=1, help="unmeasured time before it")
    parser.add_argument("--requests", type=int, default=200_000, help="at most so many a phase")
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--customers", type=int, default=64)
    parser.add_argument("--data-dir", type=Path, help="kept and used again; default: temporary")
    parser.add_argument("--database-url", help="a Postgres that runs already, instead of our own")
    parser.add_argument("--baselines-only", action="store_true", help="leave ours out")
    parser.add_argument("--markdown", type=Path, help="write the table as Markdown to this file")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name not in {"quick", "data_dir", "markdown"}
    }
    if arguments.quick:
        short = {"seconds": 1.0, "warmup": 0.5, "readers": (16,), "buyers": (16,), "customers": 16}
        given |= short | {"starts": 1, "twice": False}
    return Options(**given)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="markethall-bench-") as name:
        Path(name).chmod(0o755)  # an embedded Postgres started by root runs as another user
        yield Path(name)


def _end_in_order() -> None:
    """Being asked to stop is an interruption, so that everything started is ended."""
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
