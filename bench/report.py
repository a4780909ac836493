"""Figures, the goals they are held against, and the table at the end."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from math import isnan, nan
from typing import NamedTuple

from . import tables

RAW = "(i) raw ASGI"
SQL_ONE = "(ii) FastAPI + asyncpg, one"
SQL_PAGE = "(ii) FastAPI + asyncpg, page"
QUIET = 0.05  # foreign use of the cores that leaves a figure believable
HEADER = (
    *("measure", "at once", "value", "p50 ms", "p99 ms", "n", "stmts"),
    *("per cpu s", "server", "others", "foreign", "ratio", "goal"),
)


@dataclass(frozen=True)
class Figure:
    """One measured line. `busy` and `foreign` are shares of the cores' time, 0 to 1."""

    name: str
    value: float
    unit: str = "/s"
    at_once: int | None = None
    p50_ms: float = nan
    p99_ms: float = nan
    samples: int = 0
    sustained: float | None = None  # the rate, when work was left over that must be done too
    statements: float | None = None
    per_cpu_second: float = nan
    busy_server: float = nan
    busy_others: float = nan
    foreign: float = nan


class Goal(NamedTuple):
    """`wanted` is a share of the baseline `of`, or without one a value in the figure's unit."""

    applies: Callable[[Figure], bool]
    wanted: float
    of: str | None = None
    at_most: bool = False


# Which baseline a figure is shown against, and the goals of docs and issues.
COMPARED = {
    "product, cached": RAW,
    "product, uncached": SQL_ONE,
    "page of 20, cached": RAW,
    "page of 20, uncached": SQL_PAGE,
    "GET /users/me": SQL_ONE,
}
GOALS = (
    Goal(lambda it: it.name == "product, uncached" and it.at_once == 16, 0.60, of=SQL_ONE),
    Goal(lambda it: it.name == "page of 20, uncached" and it.at_once == 16, 0.60, of=SQL_PAGE),
    Goal(lambda it: it.name == "product, cached" and it.at_once == 16, 0.30, of=RAW),
    Goal(lambda it: it.name == "place + confirm" and (it.at_once or 0) >= 8, 100),
    Goal(lambda it: it.name.startswith("cold start"), 3, at_most=True),
    Goal(lambda it: it.name.startswith("memory of the server"), 160, at_most=True),
)


@dataclass
class Report:
    """Everything one run found."""

    options: dict[str, object]
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Keep a figure; the same baseline measured twice becomes one."""
        twin = next((it for it in self.figures if _same(it, figure)), None)
        if twin is None:
            self.figures.append(figure)
            return
        self.notes.append(
            f"{twin.name} at {twin.at_once}: {twin.value:,.0f}{twin.unit} before ours, "
            f"{figure.value:,.0f}{figure.unit} after ({figure.value / twin.value - 1:+.0%})"
        )
        self.figures[self.figures.index(twin)] = merged(twin, figure)

    def ratio(self, figure: Figure) -> float | None:
        """The figure as a share of its baseline at the same concurrency."""
        base = self._baseline(figure)
        return figure.value / base.value if base and base.value else None

    def _baseline(self, figure: Figure) -> Figure | None:
        wanted = (COMPARED.get(figure.name), figure.at_once)
        return next((it for it in self.figures if (it.name, it.at_once) == wanted), None)

    def _compared(self, figure: Figure) -> str:
        base, ratio = self._baseline(figure), self.ratio(figure)
        if base is None or ratio is None:
            return ""
        by_cpu = figure.per_cpu_second / base.per_cpu_second
        return f"{ratio:.0%} (cpu {by_cpu:.0%}) of {base.name.split()[0]}"

    def verdict(self, figure: Figure) -> str:
        """The goal and whether it was reached; empty when there is none.

        "Unclear" when programs of others took part in the figure or its baseline.
        """
        goal = next((goal for goal in GOALS if goal.applies(figure)), None)
        if goal is None:
            return ""
        kept_up = figure.value if figure.sustained is None else figure.sustained
        found = self.ratio(figure) if goal.of else kept_up
        base = self._baseline(figure) if goal.of else None
        loud = any(it.foreign > QUIET for it in (figure, base) if it)
        wanted = f"{goal.wanted:.0%} of {goal.of[:4].split()[0]}" if goal.of else f"{goal.wanted:g}"
        sign = "<=" if goal.at_most else ">="
        return f"{sign} {wanted}: {_reached(found, goal, loud)}"

    def rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(figure) for figure in self.figures)]

    def _row(self, it: Figure) -> tuple[str, ...]:
        return (
            it.name,
            str(it.at_once or ""),
            f"{it.value:,.{_digits(it)}f} {it.unit}",
            tables.number(it.p50_ms, 2),
            tables.number(it.p99_ms, 2),
            str(it.samples or ""),
            "" if it.statements is None else f"{it.statements:.2f}",
            tables.number(it.per_cpu_second, 0),
            _percent(it.busy_server),
            _percent(it.busy_others),
            _percent(it.foreign),
            self._compared(it),
            self.verdict(it),
        )

    def text(self) -> str:
        """The table for a terminal."""
        return tables.text(self.rows()) + self._remarks()

    def markdown(self) -> str:
        """The table for a page."""
        return tables.markdown(self.rows()) + self._remarks("- ")

    def write(self) -> None:
        """Write results/latest.json."""
        found = [
            asdict(it) | {"ratio": self.ratio(it), "verdict": self.verdict(it)}
            for it in self.figures
        ]
        tables.write("latest", {**asdict(self), "figures": found})

    def _remarks(self, bullet: str = "") -> str:
        expected = [f"expected refusal, {what}: {times}" for what, times in self.expected.items()]
        failed = [f"FAILED, {what}: {times}" for what, times in self.failures.items()]
        lines = [tables.machine_line(), *self.notes, *self._doubts(), *expected, *failed]
        return "\n" + "\n".join(bullet + line for line in lines) + "\n"

    def _doubts(self) -> list[str]:
        disturbed = [it for it in self.figures if it.foreign > QUIET]
        text = (
            f"{len(disturbed)} measures shared the machine with programs of others (> {QUIET:.0%}):"
        )
        return [f"{text} trust their rates less than their per cpu s"] if disturbed else []


def merged(one: Figure, other: Figure) -> Figure:
    """Both measured the same thing: the quieter one if a neighbour was loud, else the mean."""
    if max(one.foreign, other.foreign) > QUIET:
        return min(one, other, key=lambda it: it.foreign)
    return replace(
        one,
        value=(one.value + other.value) / 2,
        p50_ms=(one.p50_ms + other.p50_ms) / 2,
        p99_ms=(one.p99_ms + other.p99_ms) / 2,
        samples=one.samples + other.samples,
        busy_server=(one.busy_server + other.busy_server) / 2,
        busy_others=(one.busy_others + other.busy_others) / 2,
        foreign=(one.foreign + other.foreign) / 2,
        per_cpu_second=(one.per_cpu_second + other.per_cpu_second) / 2,
    )


def _same(one: Figure, other: Figure) -> bool:
    return (one.name, one.at_once) == (other.name, other.at_once)


def _reached(found: float | None, goal: Goal, loud: bool) -> str:
    if found is None:
        return "not measured"
    good = found <= goal.wanted if goal.at_most else found >= goal.wanted
    # Neighbours only slow things down: what was reached all the same counts, but a ratio may be
    # wrong in both directions.
    if loud and (goal.of or not good):
        return "unclear, disturbed"
    return "reached" if good else "missed"


def _digits(figure: Figure) -> int:
    return 2 if figure.unit == "s" else 0 if figure.value >= 100 else 1


def _percent(share: float) -> str:
    return "" if isnan(share) else f"{share:.0%}"
