"""The figures of the part `app`, their goals, and the table of results."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from math import isnan, nan
from typing import NamedTuple

from . import tables

RAW = "(i) raw ASGI"
PURCHASE = "(iii) hand-written purchase, one statement"
HAND_WRITTEN = "(iv) hand-written purchase, same guarantees"
SQL_ONE = "(ii) FastAPI + asyncpg, one"
SQL_PAGE = "(ii) FastAPI + asyncpg, page"
MAX_FOREIGN_SHARE = 0.05  # a figure is unreliable if other programs use a larger share of the CPU
HEADER = (
    *("measure", "concurrency", "value", "p50 ms", "p95 ms", "p99 ms", "n", "stmts"),
    *("per cpu s", "server", "others", "foreign", "ratio", "goal"),
)


@dataclass(frozen=True)
class Figure:
    """A row of the table. `busy_*` and `foreign` are shares of CPU time, from 0 to 1."""

    name: str
    value: float
    unit: str = "/s"
    concurrency: int | None = None
    p50_ms: float = nan
    p95_ms: float = nan
    p99_ms: float = nan
    samples: int = 0
    sustained: float | None = None  # rate including the time for the work after the last response
    statements: float | None = None
    per_cpu_second: float = nan
    busy_server: float = nan
    busy_others: float = nan
    foreign: float = nan


class Goal(NamedTuple):
    """A goal for the figures for which `applies` is true.

    `target` is a share of the baseline `of`. If `of` is None, it is in the unit of the figure.
    """

    applies: Callable[[Figure], bool]
    target: float
    of: str | None = None
    at_most: bool = False


# maps each figure to its baselines; the goal is a share of the first
BASELINES = {
    "product, cached": (RAW,),
    "product, uncached": (SQL_ONE,),
    "page of 20, cached": (RAW,),
    "page of 20, uncached": (SQL_PAGE,),
    "GET /users/me": (SQL_ONE,),
    "place + confirm": (HAND_WRITTEN, PURCHASE),
    HAND_WRITTEN: (PURCHASE,),
}
GOALS = (
    Goal(
        lambda figure: figure.name == "product, uncached" and figure.concurrency == 16,
        0.60,
        of=SQL_ONE,
    ),
    Goal(
        lambda figure: figure.name == "page of 20, uncached" and figure.concurrency == 16,
        0.60,
        of=SQL_PAGE,
    ),
    Goal(
        lambda figure: figure.name == "product, cached" and figure.concurrency == 16, 0.30, of=RAW
    ),
    Goal(
        lambda figure: figure.name == "place + confirm" and figure.concurrency == 8,
        0.50,
        of=HAND_WRITTEN,
    ),
    Goal(lambda figure: figure.name.startswith("cold start"), 3, at_most=True),
    Goal(lambda figure: figure.name.startswith("memory of the server"), 160, at_most=True),
)


@dataclass
class Report:
    """The results of one run."""

    options: dict[str, object]
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Add a figure. If the figure exists already, the two measurements are merged."""
        previous = next((other for other in self.figures if _same(other, figure)), None)
        if previous is None:
            self.figures.append(figure)
            return
        self.notes.append(
            f"{previous.name} at {previous.concurrency}: "
            f"{previous.value:,.0f}{previous.unit}  before the application, "
            f"{figure.value:,.0f}{figure.unit} after ({figure.value / previous.value - 1:+.0%})"
        )
        self.figures[self.figures.index(previous)] = merged(previous, figure)

    def ratio(self, figure: Figure) -> float | None:
        """Return the figure as a share of its first baseline at the same concurrency."""
        base = self._baseline(figure)
        return figure.value / base.value if base and base.value else None

    def _baseline(self, figure: Figure) -> Figure | None:
        return next(self._baselines(figure), None)

    def _baselines(self, figure: Figure) -> Iterator[Figure]:
        """Yield the measured baselines of the figure, in the order of BASELINES."""
        for name in BASELINES.get(figure.name, ()):
            target = (name, figure.concurrency)
            yield from (base for base in self.figures if (base.name, base.concurrency) == target)

    def _compared(self, figure: Figure) -> str:
        return ", ".join(
            f"{figure.value / base.value:.0%}"
            f" (cpu {figure.per_cpu_second / base.per_cpu_second:.0%}) of {base.name.split()[0]}"
            for base in self._baselines(figure)
            if base.value
        )

    def verdict(self, figure: Figure) -> str:
        """Return the goal and its verdict, such as "reached", or "" if there is no goal.

        The verdict may be "unclear" if other programs disturbed the figure or its baseline.
        """
        goal = next((goal for goal in GOALS if goal.applies(figure)), None)
        if goal is None:
            return ""
        rate = figure.value if figure.sustained is None else figure.sustained
        value = self.ratio(figure) if goal.of else rate
        base = self._baseline(figure) if goal.of else None
        disturbed = any(each.foreign > MAX_FOREIGN_SHARE for each in (figure, base) if each)
        target = f"{goal.target:.0%} of {goal.of.split()[0]}" if goal.of else f"{goal.target:g}"
        sign = "<=" if goal.at_most else ">="
        return f"{sign} {target}: {_verdict(value, goal, disturbed)}"

    def rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(figure) for figure in self.figures)]

    def _row(self, figure: Figure) -> tuple[str, ...]:
        return (
            figure.name,
            str(figure.concurrency or ""),
            f"{figure.value:,.{_digits(figure)}f} {figure.unit}",
            tables.number(figure.p50_ms, 2),
            tables.number(figure.p95_ms, 2),
            tables.number(figure.p99_ms, 2),
            str(figure.samples or ""),
            "" if figure.statements is None else f"{figure.statements:.2f}",
            tables.number(figure.per_cpu_second, 0),
            _percent(figure.busy_server),
            _percent(figure.busy_others),
            _percent(figure.foreign),
            self._compared(figure),
            self.verdict(figure),
        )

    def text(self) -> str:
        """Return the table for a terminal."""
        return tables.text(self.rows()) + self._remarks()

    def markdown(self) -> str:
        """Return the table in Markdown."""
        return tables.markdown(self.rows()) + self._remarks("- ")

    def write(self) -> None:
        """Write results/latest.json."""
        value = [
            asdict(figure) | {"ratio": self.ratio(figure), "verdict": self.verdict(figure)}
            for figure in self.figures
        ]
        tables.write("latest", {**asdict(self), "figures": value})

    def _remarks(self, bullet: str = "") -> str:
        expected = [f"expected rejection, {name}: {count}" for name, count in self.expected.items()]
        failed = [f"FAILED, {name}: {count}" for name, count in self.failures.items()]
        lines = [tables.machine_line(), *self.notes, *self._disturbed_remarks(), *expected, *failed]
        return "\n" + "\n".join(bullet + line for line in lines) + "\n"

    def _disturbed_remarks(self) -> list[str]:
        disturbed = [figure for figure in self.figures if figure.foreign > MAX_FOREIGN_SHARE]
        text = (
            f"{len(disturbed)} measures were disturbed by other programs (> "
            f"{MAX_FOREIGN_SHARE:.0%}):"
        )
        return [f"{text} their per cpu s is more reliable than their rates"] if disturbed else []


def merged(first: Figure, second: Figure) -> Figure:
    """Merge two measurements of one baseline.

    Return the mean; if other programs disturbed a measurement, return the less disturbed one.
    """
    if max(first.foreign, second.foreign) > MAX_FOREIGN_SHARE:
        return min(first, second, key=lambda figure: figure.foreign)
    return replace(
        first,
        value=(first.value + second.value) / 2,
        p50_ms=(first.p50_ms + second.p50_ms) / 2,
        p95_ms=(first.p95_ms + second.p95_ms) / 2,
        p99_ms=(first.p99_ms + second.p99_ms) / 2,
        samples=first.samples + second.samples,
        busy_server=(first.busy_server + second.busy_server) / 2,
        busy_others=(first.busy_others + second.busy_others) / 2,
        foreign=(first.foreign + second.foreign) / 2,
        per_cpu_second=(first.per_cpu_second + second.per_cpu_second) / 2,
    )


def _same(first: Figure, second: Figure) -> bool:
    return (first.name, first.concurrency) == (second.name, second.concurrency)


def _verdict(value: float | None, goal: Goal, disturbed: bool) -> str:
    if value is None:
        return "not measured"
    is_reached = value <= goal.target if goal.at_most else value >= goal.target
    # Other programs can only make a run slower. So a disturbed value that reaches its goal counts
    # as reached. A ratio may be too high or too low, because the baseline may be disturbed too.
    if disturbed and (goal.of or not is_reached):
        return "unclear, disturbed"
    return "reached" if is_reached else "missed"


def _digits(figure: Figure) -> int:
    return 2 if figure.unit == "s" else 0 if figure.value >= 100 else 1


def _percent(share: float) -> str:
    return "" if isnan(share) else f"{share:.0%}"
