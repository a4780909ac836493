"""Test the ratios and goals in the report of the benchmark."""

import pytest

from bench.report import HAND_WRITTEN, PURCHASE, Figure, Report


def _report(purchases: float) -> Report:
    report = Report(options={})
    for name, rate in ((PURCHASE, 2000), (HAND_WRITTEN, 1000), ("place + confirm", purchases)):
        report.add(Figure(name, rate, concurrency=8, per_cpu_second=rate, foreign=0))
    return report


@pytest.mark.parametrize(("purchases", "verdict"), [(500, "reached"), (499, "missed")])
def test_goal_of_purchases_is_a_share_of_the_baseline_with_the_same_guarantees(
    purchases: float, verdict: str
) -> None:
    report = _report(purchases)

    assert report.verdict(report.figures[-1]) == f">= 50% of (iv): {verdict}"


def test_purchases_are_compared_with_both_baselines() -> None:
    text = _report(500).text()

    assert "50% (cpu 50%) of (iv), 25% (cpu 25%) of (iii)" in text
