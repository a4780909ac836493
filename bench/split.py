"""Measures the cost of the split: the application as one process and as four services.

The two deployments run each phase directly one after the other, and take turns in running first, so
that noise affects both equally. The ratios are therefore more reliable than the rates.
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
from .client import Request, Scripts, Tally, load, pay_all, repeat
from .deployments import Deployment, both_deployments
from .loop import Loop
from .ratios import Scenario, SplitResult
from .servers import OTHERS, Ticks
from .shop import fetch_bodies, fetch_counters

CALLS: Final = "markethall_rpc_client_calls_total"
ATTEMPTS: Final = "markethall_rpc_client_attempts_total"
LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
MAX_PAYMENT_SECONDS: Final = 120.0  # the limit for paying all placed orders
IDLE_SECONDS: Final = 3.0  # the time in which the CPU use of idle processes is measured


class Phase(NamedTuple):
    """A phase of the load. Only requests of `kind`, served by `context`, count in its result.

    A timed phase ends after `Options.seconds`, any other when all its requests are answered.
    """

    kind: str
    context: str
    timed: bool


PHASES: Final = {
    "product read, cached": Phase("product", "inventory", timed=True),
    "place order": Phase("place", "orders", timed=True),
    "cart to order": Phase("cart", "orders", timed=True),
    "confirm payment": Phase("confirm", "payments", timed=False),
}


@dataclass(frozen=True)
class Options:
    """Each measure, deployment and number of customers has `rounds` phases of `seconds`."""

    seconds: float = 2
    warmup: float = 0.3
    rounds: int = 8
    customers: tuple[int, ...] = (1, 8, 32)
    products: int = 200


class Comparison:
    """Runs the comparison in `folder` and stores the results in `result`."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._loop = Loop()
        self._orders: Counter[str] = Counter()
        self.result = SplitResult()

    def run(self) -> SplitResult:
        """Run all phases. Raises StartFailed or Refused if a deployment fails."""
        with (
            servers.pinned(OTHERS),
            closing(self._loop),
            both_deployments(self._folder) as deployments,
        ):
            for deployment in deployments:
                self._prepare(deployment)
            self._measure_idle(deployments)
            self._record_memory("RSS before the load", deployments, servers.rss)
            before = {
                deployment.name: self._read_counters(deployment) for deployment in deployments
            }
            for number in range(self._options.rounds):
                _print_progress(f"round {number + 1} of {self._options.rounds}")
                for concurrency in self._options.customers:
                    self._round(deployments[::-1] if number % 2 else deployments, concurrency)
            self._record_memory("RSS after the load", deployments, servers.rss)
            self._record_memory("PSS after the load", deployments, servers.pss)
            for deployment in deployments:
                self._record_calls(deployment, before[deployment.name])
        return self.result

    def _prepare(self, deployment: Deployment) -> None:
        """Create products and customers, and send each kind of request before the measurement."""
        _print_progress(f"preparing {deployment.name} ...")
        inventory_port, users_port = deployment.port("inventory"), deployment.port("users")
        self._loop.do(deployment.shop.stock(inventory_port, self._options.products, users_port))
        self._loop.do(deployment.shop.register(users_port, max(self._options.customers)))
        self._loop.do(deployment.shop.log_in(users_port))
        self._loop.do(fetch_bodies(inventory_port, deployment.shop.products()))
        payments = self._loop.do(deployment.shop.order_once(deployment.port("orders")))
        self._loop.do(fetch_bodies(deployment.port("payments"), payments))
        deployment.settle()

    def _round(self, deployments: Sequence[Deployment], concurrency: int) -> None:
        for deployment in deployments:
            self._loop.do(deployment.shop.stay_logged_in(deployment.port("users")))
            reads = repeat(deployment.shop.products(), concurrency)
            self._phase(deployment, Scenario("product read, cached", concurrency), reads)
        unpaid: dict[str, list[list[Request]]] = {deployment.name: [] for deployment in deployments}
        for deployment in deployments:
            orders = deployment.shop.place_unpaid_orders(concurrency, unpaid[deployment.name])
            tally = self._phase(deployment, Scenario("place order", concurrency), orders)
            self._orders[deployment.name] += tally.answered["place"]
        for deployment in deployments:
            carts = deployment.shop.check_out_carts(concurrency, unpaid[deployment.name])
            tally = self._phase(deployment, Scenario("cart to order", concurrency), carts)
            self._orders[deployment.name] += tally.answered["cart"]
        for deployment in deployments:
            paying = pay_all(unpaid[deployment.name])
            self._phase(deployment, Scenario("confirm payment", concurrency), paying)

    def _phase(self, deployment: Deployment, scenario: Scenario, scripts: Scripts) -> Tally:
        """Run one phase of this deployment, and wait until its processes are idle."""
        kind, context, timed = PHASES[scenario.measure]
        options, tally = self._options, Tally()
        started, before = perf_counter(), Ticks.now(*deployment.pids)
        warmup, seconds = (options.warmup, options.seconds) if timed else (0, MAX_PAYMENT_SECONDS)
        self._loop.do(load(deployment.port(context), scripts, tally, warmup, seconds))
        tally.closes = min(tally.closes, perf_counter())
        foreign = Ticks.now().foreign(before)
        deployment.settle()
        idle_cpu = self.result.idle_cores[deployment.name] * (perf_counter() - started)
        cpu = Ticks.now(*deployment.pids).seconds(before) - idle_cpu
        self.result.samples(scenario, deployment.name).add(tally, kind, cpu)
        self.result.foreign.setdefault(scenario, []).append(foreign)
        failures = Counter(tally.failures)
        if not tally.answered[kind]:
            failures[f"{kind}: no response in a round"] = 1
        for name, count in failures.items():
            self.result.failures[
                f"{deployment.name}, {scenario.measure} at {scenario.concurrency}, {name}"
            ] += count
        return tally

    def _measure_idle(self, deployments: Sequence[Deployment]) -> None:
        """Measure the share of a core that each idle deployment uses."""
        before = [Ticks.now(*deployment.pids) for deployment in deployments]
        time.sleep(IDLE_SECONDS)
        for deployment, before_idle in zip(deployments, before, strict=True):
            self.result.idle_cores[deployment.name] = (
                Ticks.now(*deployment.pids).seconds(before_idle) / IDLE_SECONDS
            )

    def _record_memory(
        self, name: str, deployments: Sequence[Deployment], measure: Callable[[int], float]
    ) -> None:
        self.result.memory[name] = {
            deployment.name: sum(map(measure, deployment.pids)) for deployment in deployments
        }

    def _record_calls(self, deployment: Deployment, before: Mapping[str, Counter[str]]) -> None:
        """Record calls and attempts per placed and paid order."""
        orders = max(self._orders[deployment.name], 1)
        now = self._read_counters(deployment)
        for name, recorded in ((CALLS, self.result.calls), (ATTEMPTS, self.result.attempts)):
            new = now[name] - before[name]
            recorded[deployment.name] = {
                name: count / orders for name, count in sorted(new.items())
            }

    def _read_counters(self, deployment: Deployment) -> dict[str, Counter[str]]:
        """Return calls and attempts of all processes, by target and method."""
        return {name: self._read_counter(deployment, name) for name in (CALLS, ATTEMPTS)}

    def _read_counter(self, deployment: Deployment, name: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for port in deployment.ports:
            for labels, value in self._loop.do(fetch_counters(port, name)).items():
                result = dict(LABEL.findall(labels))
                counts[f"{result['target']}.{result['method']}"] += int(value)
        return counts


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
