"""The results of both deployments, and the ratios of the split to the monolith."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, nan
from statistics import median
from typing import Final, NamedTuple

from . import tables
from .client import Tally

HEADER: Final = (
    *("measure", "concurrency", "monolith /s", "split /s", "ratio", "by round"),
    *("p50 ms", "ratio", "p95 ms", "ratio", "p99 ms", "ratio", "cpu us", "ratio", "n", "foreign"),
)
MAX_FOREIGN_SHARE: Final = 0.05  # unreliable if other programs use a larger share of the CPU
DEPLOYMENTS: Final = ("monolith", "split")


class Scenario(NamedTuple):
    """A row of the table: a measure and the number of concurrent customers."""

    measure: str
    concurrency: int


class Round(NamedTuple):
    """One phase of one deployment.

    `cpu_us` is the CPU time of all processes per response, including the background work that
    follows.
    """

    rate: float
    p50_ms: float
    cpu_us: float


@dataclass
class Samples:
    """The measurements of one deployment in a scenario. Latencies are in seconds."""

    latencies: list[float] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    def add(self, tally: Tally, kind: str, cpu: float) -> None:
        """Add the results of a phase. `cpu` is in CPU seconds."""
        self.latencies.extend(tally.latencies[kind])
        values = cpu * 1e6 / max(tally.answered[kind], 1)
        self.rounds.append(Round(tally.rate(kind), tally.percentile(kind, 50) * 1000, values))

    def figures(self) -> dict[str, float]:
        """Return the medians of the rounds.

        p95 and p99 are computed from all responses, because a round has too few for them.
        """
        middle = map(median, zip(*self.rounds, strict=True))
        tail = {f"p{percent}_ms": self._percentile_ms(percent) for percent in (95, 99)}
        return dict(zip(Round._fields, middle, strict=True)) | tail | {"n": len(self.latencies)}

    def _percentile_ms(self, percent: int) -> float:
        ordered = sorted(self.latencies)
        return ordered[ceil(len(ordered) * percent / 100) - 1] * 1000 if ordered else nan


@dataclass
class SplitResult:
    """The results of a run.

    There are samples for each scenario and deployment. Each deployment also has its memory in MB,
    the share of a core that it uses when idle, and the calls to other contexts per order.
    """

    samples_by_scenario: dict[Scenario, dict[str, Samples]] = field(default_factory=dict)
    foreign: dict[Scenario, list[float]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    idle_cores: dict[str, float] = field(default_factory=dict)
    calls: dict[str, dict[str, float]] = field(default_factory=dict)
    attempts: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def samples(self, scenario: Scenario, deployment: str) -> Samples:
        return self.samples_by_scenario.setdefault(scenario, {}).setdefault(deployment, Samples())

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self, options: object) -> None:
        """Write results/split.json."""
        scenarios = [
            {
                **scenario._asdict(),
                "foreign": median(self.foreign[scenario]),
                "split/monolith": ratios(by_deployment),
            }
            | {deployment: samples.figures() for deployment, samples in by_deployment.items()}
            for scenario, by_deployment in self.samples_by_scenario.items()
        ]
        idle_cores: dict[str, object] = {"memory_mb": self.memory, "idle_cores": self.idle_cores}
        idle_cores |= {"calls_per_order": self.calls}
        idle_cores |= {"attempts_per_order": self.attempts, "failures": self.failures}
        tables.write("split", {"options": options, "scenes": scenarios, **idle_cores})

    def _rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(scenario) for scenario in self.samples_by_scenario)]

    def _row(self, scenario: Scenario) -> tuple[str, ...]:
        monolith, split = (
            self.samples_by_scenario[scenario][deployment].figures() for deployment in DEPLOYMENTS
        )
        ratio, rates = (
            ratios(self.samples_by_scenario[scenario]),
            by_round(self.samples_by_scenario[scenario])["rate"],
        )
        return (
            *(scenario.measure, str(scenario.concurrency)),
            *(f"{monolith['rate']:,.0f}", f"{split['rate']:,.0f}", _times(ratio["rate"])),
            f"{min(rates):.2f}-{max(rates):.2f}",
            *(_pair(monolith, split, "p50_ms", 2), _times(ratio["p50_ms"])),
            *(_pair(monolith, split, "p95_ms", 2), _times(ratio["p95_ms"])),
            *(_pair(monolith, split, "p99_ms", 2), _times(ratio["p99_ms"])),
            *(_pair(monolith, split, "cpu_us", 0), _times(ratio["cpu_us"])),
            f"{monolith['n']:.0f}, {split['n']:.0f}",
            f"{median(self.foreign[scenario]):.0%}",
        )

    def _remarks(self) -> Iterator[str]:
        yield tables.machine_line()
        for kind, by_deployment in self.memory.items():
            monolith, split = (by_deployment[deployment] for deployment in DEPLOYMENTS)
            yield f"{kind}: {monolith:.0f} MB monolith, {split:.0f} split, {split / monolith:.2f}x"
        idle = ", ".join(
            f"{deployment} {share:.1%}" for deployment, share in self.idle_cores.items()
        )
        yield f"of a core when idle (subtracted from cpu us): {idle}"
        for deployment, calls in self.calls.items():
            values = ", ".join(f"{name} {count:.2f}" for name, count in calls.items())
            yield (
                f"calls of other contexts per order, {deployment}: "
                f"{sum(calls.values()):.2f} ({values})"
            )
        for deployment, attempts in self.attempts.items():
            yield (
                f"HTTP requests between contexts per order, {deployment}: "
                f"{sum(attempts.values()):.2f}"
            )
        if disturbed := sum(median(shares) > MAX_FOREIGN_SHARE for shares in self.foreign.values()):
            yield (
                f"{disturbed} measures were disturbed by other programs: the ratios "
                f"are more reliable than the rates"
            )
        for name, count in self.failures.items():
            yield f"FAILED, {name}: {count}"


def ratios(by_deployment: Mapping[str, Samples]) -> dict[str, float]:
    """Return the ratios of split to monolith: medians over the rounds.

    Those of p95 and p99 are computed from all responses.
    """
    result = {name: median(values) for name, values in by_round(by_deployment).items()}
    monolith, split = (by_deployment[deployment].figures() for deployment in DEPLOYMENTS)
    return result | {name: split[name] / monolith[name] for name in ("p95_ms", "p99_ms")}


def by_round(by_deployment: Mapping[str, Samples]) -> dict[str, list[float]]:
    """Map each figure to the ratios of split to monolith, one per round.

    A round in which one deployment gave no response has no ratio. If no round has a ratio, the only
    value is not a number (NaN).
    """
    rounds = (by_deployment[deployment].rounds for deployment in DEPLOYMENTS)
    pairs = [pair for pair in zip(*rounds, strict=True) if all(item.rate for item in pair)]
    if not pairs:
        return {name: [nan] for name in Round._fields}
    return {
        name: [getattr(split, name) / getattr(monolith, name) for monolith, split in pairs]
        for name in Round._fields
    }


def _pair(monolith: dict[str, float], split: dict[str, float], name: str, digits: int) -> str:
    return f"{monolith[name]:,.{digits}f} -> {split[name]:,.{digits}f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"
