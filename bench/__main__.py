"""`python -m bench [part ...]`: measure, print tables, write bench/results.

hall      how fast the hall is beside what its stack can do
split     the hall in one process against the hall in four
contract  one call of a neighbour's contract: in process, over ASGI, over loopback
hot       one product that everybody wants: reservations and orders beside a plain UPDATE
imports   a catalogue that comes as a file: rows per second, and memory
catalogue 100,000 products: cached and uncached reads, searches, deep pages
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import asyncpg

from . import catalogue, contract, hot, imports, split
from .loop import STOPPING
from .report import Report
from .suite import Options, Suite


class Tables(Protocol):
    """What a part found."""

    def text(self) -> str: ...
    def markdown(self) -> str: ...


def main() -> int:
    """0 when every answer was a good one; a missed goal is a figure, not a failure."""
    parser = _parser()
    arguments = parser.parse_args()
    _end_in_order()
    if arguments.markdown:
        arguments.markdown.write_text("")
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    wanted = arguments.parts or (["hall"] if arguments.baselines_only else list(PARTS))
    problems = [problem for name in wanted if (problem := _problem(PARTS[name], arguments))]
    return 1 if problems else 0


def _problem(part: "Part", arguments: argparse.Namespace) -> str:
    """The reason why it ended early or is not to be believed; empty when all is well."""
    try:
        with _folder(arguments.data_dir if part is _hall else None) as folder:
            failures = part(arguments, folder)
    except (RuntimeError, OSError, ImportError, asyncpg.PostgresError) as problem:
        failures = f"stopped early: {type(problem).__name__}: {problem}"
    if failures:
        print(failures, file=sys.stderr)
    return failures


def _hall(arguments: argparse.Namespace, folder: Path) -> str:
    options = _options(arguments)
    report = Report(options={**asdict(options), "database_url": bool(options.database_url)})
    try:
        Suite(options, folder, report).run()
    finally:
        _show(report, arguments)
    report.write()
    return _failures(report.failures)


def _split(arguments: argparse.Namespace, folder: Path) -> str:
    options = split.Options(seconds=1, rounds=1) if arguments.quick else split.Options()
    comparison = split.Comparison(options, folder)
    comparison.run()
    _show(comparison.found, arguments)
    comparison.found.write(asdict(options))
    return _failures(comparison.found.failures)


def _contract(arguments: argparse.Namespace, folder: Path) -> str:
    options = contract.Options(rounds=2) if arguments.quick else contract.Options()
    found = contract.measure(options, folder)
    _show(found, arguments)
    found.write(options)
    return ""


def _hot(arguments: argparse.Namespace, folder: Path) -> str:
    options = hot.Options(seconds=1, rounds=1) if arguments.quick else hot.Options()
    found = hot.measure(options, folder)
    _show(found, arguments)
    found.write()
    return _failures(found.failures)


def _imports(arguments: argparse.Namespace, folder: Path) -> str:
    options = imports.Options(rows=5000) if arguments.quick else imports.Options()
    found = imports.measure(options, folder)
    _show(found, arguments)
    found.write()
    failed = sum(int(run["failed"]) for run in found.runs.values())
    return f"{failed} rows failed" if failed else ""


def _catalogue(arguments: argparse.Namespace, folder: Path) -> str:
    few = catalogue.Options(products=5000, seconds=0.5, rounds=1, depth=2000)
    found = catalogue.measure(few if arguments.quick else catalogue.Options(), folder)
    _show(found, arguments)
    found.write()
    return _failures(found.failures)


def _show(found: Tables, arguments: argparse.Namespace) -> None:
    print(found.text())
    if arguments.markdown:
        with arguments.markdown.open("a") as page:
            page.write(found.markdown() + "\n")


def _failures(failures: Mapping[str, int]) -> str:
    return f"{sum(failures.values())} answers were not the expected ones" if failures else ""


Part = Callable[[argparse.Namespace, Path], str]
PARTS: Final[Mapping[str, Part]] = {
    "hall": _hall,
    "split": _split,
    "contract": _contract,
    "hot": _hot,
    "imports": _imports,
    "catalogue": _catalogue,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="short phases: a smoke test")
    parser.add_argument("--markdown", type=Path, help="write the tables as Markdown to this file")
    hall = parser.add_argument_group("hall")
    hall.add_argument("--seconds", type=float, default=4, help="measured time of a phase")
    hall.add_argument("--warmup", type=float, default=1, help="unmeasured time before it")
    hall.add_argument("--requests", type=int, default=200_000, help="at most so many a phase")
    hall.add_argument("--products", type=int, default=1000)
    hall.add_argument("--customers", type=int, default=64)
    hall.add_argument("--data-dir", type=Path, help="kept and used again; default: temporary")
    hall.add_argument("--database-url", help="a Postgres that runs already, instead of our own")
    hall.add_argument("--baselines-only", action="store_true", help="leave ours out")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name not in {"parts", "quick", "data_dir", "markdown"}
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
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
