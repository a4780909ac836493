"""What both sides did, as ratios of apart to together."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, nan
from statistics import median
from typing import Final, NamedTuple

from . import tables
from .client import Tally

HEADER: Final = (
    *("measure", "at once", "together /s", "apart /s", "ratio", "by round"),
    *("p50 ms", "ratio", "p99 ms", "ratio", "cpu us", "ratio", "n", "foreign"),
)
QUIET: Final = 0.05  # foreign use of the cores that leaves a figure believable
SIDES: Final = ("together", "apart")


class Scene(NamedTuple):
    """One line of the table: so many customers at once doing one thing."""

    measure: str
    at_once: int


class Round(NamedTuple):
    """One phase of one side. `cpu_us`: of all its processes, per answer, with what came after."""

    rate: float
    p50_ms: float
    cpu_us: float


@dataclass
class Pile:
    """What one side did in all phases of a scene. Latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    def add(self, tally: Tally, kind: str, cpu: float) -> None:
        """`cpu`: processor seconds."""
        self.latencies.extend(tally.latencies[kind])
        each = cpu * 1e6 / max(tally.answered[kind], 1)
        self.rounds.append(Round(tally.rate(kind), tally.percentile(kind, 50) * 1000, each))

    def figures(self) -> dict[str, float]:
        """Medians of the rounds. Only p99 is of all answers: a round has too few for it."""
        middle = map(median, zip(*self.rounds, strict=True))
        n = len(self.latencies)
        return {**dict(zip(Round._fields, middle, strict=True)), "p99_ms": self._p99(), "n": n}

    def _p99(self) -> float:
        ordered = sorted(self.latencies)
        return ordered[ceil(len(ordered) * 0.99) - 1] * 1000 if ordered else nan


@dataclass
class Found:
    """A run: per scene a pile for each side; per side MB of memory, the share of a core that it
    uses at rest, and calls of neighbours per order."""

    piles: dict[Scene, dict[str, Pile]] = field(default_factory=dict)
    foreign: dict[Scene, list[float]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    rest: dict[str, float] = field(default_factory=dict)
    calls: dict[str, dict[str, float]] = field(default_factory=dict)
    attempts: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def pile(self, scene: Scene, side: str) -> Pile:
        return self.piles.setdefault(scene, {}).setdefault(side, Pile())

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self, options: object) -> None:
        """Write results/split.json."""
        scenes = [
            {
                **scene._asdict(),
                "foreign": median(self.foreign[scene]),
                "apart/together": ratios(piles),
            }
            | {side: pile.figures() for side, pile in piles.items()}
            for scene, piles in self.piles.items()
        ]
        rest: dict[str, object] = {"memory_mb": self.memory, "cores_at_rest": self.rest}
        rest |= {"calls_per_order": self.calls}
        rest |= {"attempts_per_order": self.attempts, "failures": self.failures}
        tables.write("split", {"options": options, "scenes": scenes, **rest})

    def _rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(scene) for scene in self.piles)]

    def _row(self, scene: Scene) -> tuple[str, ...]:
        together, apart = (self.piles[scene][side].figures() for side in SIDES)
        ratio, rates = ratios(self.piles[scene]), by_round(self.piles[scene])["rate"]
        return (
            *(scene.measure, str(scene.at_once)),
            *(f"{together['rate']:,.0f}", f"{apart['rate']:,.0f}", _times(ratio["rate"])),
            f"{min(rates):.2f}-{max(rates):.2f}",
            *(_pair(together, apart, "p50_ms", 2), _times(ratio["p50_ms"])),
            *(_pair(together, apart, "p99_ms", 2), _times(ratio["p99_ms"])),
            *(_pair(together, apart, "cpu_us", 0), _times(ratio["cpu_us"])),
            f"{together['n']:.0f}, {apart['n']:.0f}",
            f"{median(self.foreign[scene]):.0%}",
        )

    def _remarks(self) -> Iterator[str]:
        yield tables.machine_line()
        for kind, sides in self.memory.items():
            together, apart = (sides[side] for side in SIDES)
            yield f"{kind}: {together:.0f} MB together, {apart:.0f} apart, {apart / together:.2f}x"
        resting = ", ".join(f"{side} {share:.1%}" for side, share in self.rest.items())
        yield f"of a core at rest (subtracted from cpu us): {resting}"
        for side, calls in self.calls.items():
            each = ", ".join(f"{name} {count:.2f}" for name, count in calls.items())
            yield f"calls of neighbours per order, {side}: {sum(calls.values()):.2f} ({each})"
        for side, sent in self.attempts.items():
            yield f"requests over the wire per order, {side}: {sum(sent.values()):.2f}"
        if loud := sum(median(shares) > QUIET for shares in self.foreign.values()):
            yield f"{loud} measures shared the machine with others: believe ratios, not rates"
        for what, times in self.failures.items():
            yield f"FAILED, {what}: {times}"


def ratios(piles: Mapping[str, Pile]) -> dict[str, float]:
    """Apart to together: the median of the rounds, in each of which both had the same weather."""
    found = {name: median(each) for name, each in by_round(piles).items()}
    together, apart = (piles[side].figures() for side in SIDES)
    return found | {"p99_ms": apart["p99_ms"] / together["p99_ms"]}


def by_round(piles: Mapping[str, Pile]) -> dict[str, list[float]]:
    """Apart to together in each round, by figure."""
    pairs = list(zip(*(piles[side].rounds for side in SIDES), strict=True))
    return {
        name: [getattr(apart, name) / getattr(together, name) for together, apart in pairs]
        for name in Round._fields
    }


def _pair(together: dict[str, float], apart: dict[str, float], name: str, digits: int) -> str:
    return f"{together[name]:,.{digits}f} -> {apart[name]:,.{digits}f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"
