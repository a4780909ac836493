"""Read values of the metrics of this process."""

from collections.abc import Callable

from markethall.shared.observability.metrics import REGISTRY


def metric_value(name: str, **labels: str) -> float | None:
    """Return the value of a sample, or None if it does not exist."""
    return REGISTRY.get_sample_value(name, labels)


def metric_growth(name: str, **labels: str) -> Callable[[], float]:
    """Return a function that returns by how much the sample has grown since this call."""
    before = metric_value(name, **labels) or 0.0
    return lambda: (metric_value(name, **labels) or 0.0) - before
