"""The table of metrics, read from the registry; docs, alert rules and dashboard follow from it."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from markethall.shared.observability import metrics

_KINDS: Final = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
_HISTOGRAM_SUFFIXES: Final = ("_bucket", "_sum", "_count")


@dataclass(frozen=True)
class Metric:
    """A metric of docs/metrics.md. `name` is its name in queries, without those of a histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names that a query can use."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(self.name + suffix for suffix in _HISTOGRAM_SUFFIXES)


def list_metrics() -> list[Metric]:
    """Return all metrics in the order of their declaration."""
    labels = _declared_labels()
    return [_describe(declared, labels) for declared in _declared_metrics()]


def metric_rows() -> str:
    rows = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} |"
        for metric in list_metrics()
    ]
    return "\n".join(rows)


def _declared_metrics() -> Iterator[MetricWrapperBase]:
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            yield value


def _describe(declared: MetricWrapperBase, labels: dict[str, tuple[str, ...]]) -> Metric:
    (family,) = declared.describe()
    kind = _KINDS[type(declared)]
    name = f"{family.name}_total" if kind == "counter" else family.name
    return Metric(name, kind, labels[family.name], family.documentation)


def _declared_labels() -> dict[str, tuple[str, ...]]:
    """Return the label names by the name of the metric.

    They are read from the source, because prometheus_client has no public way to read the label
    names of a metric without samples.
    """
    kinds = {f"_{kind}" for kind in _KINDS.values()}
    tree = ast.parse(inspect.getsource(metrics))
    return {
        ast.literal_eval(call.args[0]): tuple(
            ast.literal_eval(call.args[2]) if call.args[2:] else ()
        )
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds
    }
