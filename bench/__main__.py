"""`python -m bench [part ...]`: measure, print tables, write bench/results.

app       the application compared with minimal ones on the same libraries
split     the application as one process and as four services
contract  one call of another context: in process, over ASGI, over loopback
hot       one product under high demand: reservations and orders compared with a plain UPDATE
imports   import of a catalogue from a file: rows per second, and memory
catalogue 100,000 products: cached and uncached reads, searches, deep pages
overload  goodput and rejections at one, two and three times the capacity
payments  confirms by the latency of the provider, and product reads beside them
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

from . import catalogue, contract, hot, imports, overload, payments, split
from .loop import STOP_SIGNALS
from .report import Report
from .suite import Options, Suite


class Tables(Protocol):
    """The results of a part of the benchmark, as tables."""

    def text(self) -> str: ...
    def markdown(self) -> str: ...


def main() -> int:
    """Run the parts. Return 0 if every response was as expected, even if a goal is missed.

    Wrong rows of a baseline are a failure too.
    """
    parser = _parser()
    arguments = parser.parse_args()
    _handle_stop_signals()
    if arguments.markdown:
        arguments.markdown.write_text("")
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    names = arguments.parts or (["app"] if arguments.baselines_only else list(PARTS))
    problems = [problem for name in names if (problem := _problem(PARTS[name], arguments))]
    return 1 if problems else 0


def _problem(part: "Part", arguments: argparse.Namespace) -> str:
    """Run a part. Return the reason of a failure, or an empty string."""
    try:
        with _folder(arguments.data_dir if part is _app else None) as folder:
            failures = part(arguments, folder)
    except (RuntimeError, OSError, ImportError, asyncpg.PostgresError) as problem:
        failures = f"stopped early: {type(problem).__name__}: {problem}"
    if failures:
        print(failures, file=sys.stderr)
    return failures


def _app(arguments: argparse.Namespace, folder: Path) -> str:
    options = _options(arguments)
    report = Report(options={**asdict(options), "database_url": bool(options.database_url)})
    try:
        Suite(options, folder, report).run()
    finally:
        _print_tables(report, arguments)
    report.write()
    return _failures(report.failures)


def _split(arguments: argparse.Namespace, folder: Path) -> str:
    options = split.Options(seconds=1, rounds=1) if arguments.quick else split.Options()
    comparison = split.Comparison(options, folder)
    comparison.run()
    _print_tables(comparison.result, arguments)
    comparison.result.write(asdict(options))
    return _failures(comparison.result.failures)


def _contract(arguments: argparse.Namespace, folder: Path) -> str:
    options = contract.Options(rounds=2) if arguments.quick else contract.Options()
    results = contract.measure(options, folder)
    _print_tables(results, arguments)
    results.write(options)
    return ""


def _hot(arguments: argparse.Namespace, folder: Path) -> str:
    options = hot.Options(seconds=1, rounds=1) if arguments.quick else hot.Options()
    results = hot.measure(options, folder)
    _print_tables(results, arguments)
    results.write()
    return _failures(results.failures)


def _imports(arguments: argparse.Namespace, folder: Path) -> str:
    options = imports.Options(rows=5000) if arguments.quick else imports.Options()
    results = imports.measure(options, folder)
    _print_tables(results, arguments)
    results.write()
    failed = sum(int(run["failed"]) for run in results.runs.values())
    return f"{failed} rows failed" if failed else ""


def _catalogue(arguments: argparse.Namespace, folder: Path) -> str:
    quick_options = catalogue.Options(products=5000, seconds=0.5, rounds=1, depth=2000)
    results = catalogue.measure(quick_options if arguments.quick else catalogue.Options(), folder)
    _print_tables(results, arguments)
    results.write()
    return _failures(results.failures)


def _overload(arguments: argparse.Namespace, folder: Path) -> str:
    quick_options = overload.Options(seconds=1, rounds=1, customers=32, catalogue=500)
    results = overload.measure(quick_options if arguments.quick else overload.Options(), folder)
    _print_tables(results, arguments)
    results.write()
    return _failures(results.failures)


def _payments(arguments: argparse.Namespace, folder: Path) -> str:
    quick_options = payments.Options(seconds=1, rounds=1, products=20)
    results = payments.measure(quick_options if arguments.quick else payments.Options(), folder)
    _print_tables(results, arguments)
    results.write()
    return _failures(results.failures)


def _print_tables(results: Tables, arguments: argparse.Namespace) -> None:
    print(results.text())
    if arguments.markdown:
        with arguments.markdown.open("a") as file:
            file.write(results.markdown() + "\n")


def _failures(failures: Mapping[str, int]) -> str:
    return f"{sum(failures.values())} unexpected responses or rows" if failures else ""


Part = Callable[[argparse.Namespace, Path], str]
PARTS: Final[Mapping[str, Part]] = {
    "app": _app,
    "split": _split,
    "contract": _contract,
    "hot": _hot,
    "imports": _imports,
    "catalogue": _catalogue,
    "overload": _overload,
    "payments": _payments,
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
    group = parser.add_argument_group("app")
    group.add_argument("--seconds", type=float, default=4, help="measured time of a phase")
    group.add_argument("--warmup", type=float, default=1, help="unmeasured time before it")
    group.add_argument("--requests", type=int, default=200_000, help="maximum number in a phase")
    group.add_argument("--products", type=int, default=1000)
    group.add_argument("--customers", type=int, default=64)
    group.add_argument("--data-dir", type=Path, help="reused by later runs; default: temporary")
    group.add_argument("--database-url", help="a running Postgres instead of the embedded one")
    group.add_argument("--baselines-only", action="store_true", help="measure the baselines only")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    values = {
        name: value
        for name, value in vars(arguments).items()
        if name not in {"parts", "quick", "data_dir", "markdown"}
    }
    if arguments.quick:
        quick_values = {
            "seconds": 1.0,
            "warmup": 0.5,
            "readers": (16,),
            "buyers": (16,),
            "customers": 16,
        }
        values |= quick_values | {"starts": 1, "twice": False}
    return Options(**values)


@contextmanager
def _folder(values: Path | None) -> Iterator[Path]:
    if values:
        values.mkdir(parents=True, exist_ok=True)
        yield values.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="markethall-bench-") as name:
        # readable for all, because an embedded Postgres started by root runs as another user
        Path(name).chmod(0o755)
        yield Path(name)


def _handle_stop_signals() -> None:
    """Turn stop signals into KeyboardInterrupt, so that all started processes are stopped."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
