"""What the split costs: one hall in one process against the same hall in four.

Both play a phase before the next one comes, again and again, and take turns in going first: what
disturbs the machine disturbs both, and the ratios hold where the rates do not.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from . import servers
from .client import Request, Script, Scripts, Tally, endless, load
from .loop import Loop
from .ratios import Found, Scene
from .servers import OTHERS, Ticks
from .shop import bodies, counters
from .sides import Side, both

CALLS: Final = "markethall_rpc_client_calls_total"
ATTEMPTS: Final = "markethall_rpc_client_attempts_total"
LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
LONGEST: Final = 120.0  # seconds for paying what was ordered
REST: Final = 3.0  # seconds of watching what is used at rest


class Phase(NamedTuple):
    """What is counted, whom it is asked of, and whether time or the work ends it."""

    kind: str
    context: str
    timed: bool


PHASES: Final = {
    "product read, cached": Phase("product", "inventory", timed=True),
    "place order": Phase("place", "orders", timed=True),
    "confirm payment": Phase("confirm", "payments", timed=False),
}


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` for each measure, each side and each number of customers."""

    seconds: float = 2
    warmup: float = 0.3
    rounds: int = 8
    customers: tuple[int, ...] = (1, 8)
    products: int = 200


class Comparison:
    """One run in `folder`. `found` fills while it runs."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._loop = Loop()
        self._orders: Counter[str] = Counter()
        self.found = Found()

    def run(self) -> Found:
        """Raises StartFailed or Refused when a side does not play along."""
        with servers.pinned(OTHERS), closing(self._loop), both(self._folder) as sides:
            for side in sides:
                self._prepare(side)
            self._note_rest(sides)
            self._note_memory("RSS before the load", sides, servers.rss)
            before = {side.name: self._counted(side) for side in sides}
            for number in range(self._options.rounds):
                _say(f"round {number + 1} of {self._options.rounds}")
                for at_once in self._options.customers:
                    self._round(sides[::-1] if number % 2 else sides, at_once)
            self._note_memory("RSS after the load", sides, servers.rss)
            self._note_memory("PSS after the load", sides, servers.pss)
            for side in sides:
                self._note_calls(side, before[side.name])
        return self.found

    def _prepare(self, side: Side) -> None:
        """Goods and customers; and whatever is slow the first time has been done once."""
        _say(f"preparing {side.name} ...")
        goods, people = side.port("inventory"), side.port("users")
        self._loop.do(side.shop.stock(goods, self._options.products, people))
        self._loop.do(side.shop.register(people, max(self._options.customers)))
        self._loop.do(side.shop.log_in(people))
        self._loop.do(bodies(goods, side.shop.products()))
        due = self._loop.do(side.shop.order_once(side.port("orders")))
        self._loop.do(bodies(side.port("payments"), due))
        side.settle()

    def _round(self, sides: Sequence[Side], at_once: int) -> None:
        for side in sides:
            self._loop.do(side.shop.stay_logged_in(side.port("users")))
            reads = endless(side.shop.products(), at_once)
            self._phase(side, Scene("product read, cached", at_once), reads)
        unpaid: dict[str, list[list[Request]]] = {side.name: [] for side in sides}
        for side in sides:
            orders = side.shop.ordering(at_once, unpaid[side.name])
            tally = self._phase(side, Scene("place order", at_once), orders)
            self._orders[side.name] += tally.answered["place"]
        for side in sides:
            paying = _each_once(unpaid[side.name])
            self._phase(side, Scene("confirm payment", at_once), paying)

    def _phase(self, side: Side, scene: Scene, scripts: Scripts) -> Tally:
        """The one measured phase of this side; it ends when the server has nothing left to do."""
        kind, context, timed = PHASES[scene.measure]
        options, tally = self._options, Tally()
        began, before = perf_counter(), Ticks.now(*side.pids)
        warmup, seconds = (options.warmup, options.seconds) if timed else (0, LONGEST)
        self._loop.do(load(side.port(context), scripts, tally, warmup, seconds))
        tally.closes = min(tally.closes, perf_counter())
        foreign = Ticks.now().foreign(before)
        side.settle()
        at_rest = self.found.rest[side.name] * (perf_counter() - began)
        cpu = Ticks.now(*side.pids).seconds(before) - at_rest
        self.found.pile(scene, side.name).add(tally, kind, cpu)
        self.found.foreign.setdefault(scene, []).append(foreign)
        for what, times in tally.failures.items():
            self.found.failures[f"{side.name}, {scene.measure} at {scene.at_once}, {what}"] += times
        return tally

    def _note_rest(self, sides: Sequence[Side]) -> None:
        """The processor seconds per second that each side uses when nobody asks for anything."""
        before = [Ticks.now(*side.pids) for side in sides]
        time.sleep(REST)
        for side, was in zip(sides, before, strict=True):
            self.found.rest[side.name] = Ticks.now(*side.pids).seconds(was) / REST

    def _note_memory(self, name: str, sides: Sequence[Side], of: Callable[[int], float]) -> None:
        self.found.memory[name] = {side.name: sum(map(of, side.pids)) for side in sides}

    def _note_calls(self, side: Side, before: Mapping[str, Counter[str]]) -> None:
        """What was counted since then, per order placed and paid."""
        orders = max(self._orders[side.name], 1)
        now = self._counted(side)
        for name, kept in ((CALLS, self.found.calls), (ATTEMPTS, self.found.attempts)):
            new = now[name] - before[name]
            kept[side.name] = {what: times / orders for what, times in sorted(new.items())}

    def _counted(self, side: Side) -> dict[str, Counter[str]]:
        """Calls and attempts, by target and method, of all its processes."""
        return {name: self._counted_of(side, name) for name in (CALLS, ATTEMPTS)}

    def _counted_of(self, side: Side, name: str) -> Counter[str]:
        counted: Counter[str] = Counter()
        for port in side.ports:
            for labels, value in self._loop.do(counters(port, name)).items():
                found = dict(LABEL.findall(labels))
                counted[f"{found['target']}.{found['method']}"] += int(value)
        return counted


def _each_once(requests: Sequence[Sequence[Request]]) -> Scripts:
    """Each customer pays what they have ordered."""
    return lambda _: [_one_after_another(own) for own in requests]


def _one_after_another(requests: Sequence[Request]) -> Script:
    for request in requests:  # noqa: UP028 - a list cannot be told the answers
        yield request


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
