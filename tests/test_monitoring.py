"""Test the generated alert rules and dashboard; `make test-monitoring` runs them in Prometheus."""

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from scripts.monitoring.alerts import ALERTS, expand
from scripts.monitoring.generate import FOLDER, list_outdated
from scripts.monitoring.metric_table import list_metrics

METRIC_NAME = re.compile(r"\bmarkethall_\w+")
NAMES = {name for metric in list_metrics() for name in metric.sample_names}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def test_files_are_current() -> None:
    assert list_outdated() == [], "run make docs"


def test_rules_and_panels_name_only_metrics_that_exist() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
    used = METRIC_NAME.findall(" ".join([*queries(), *(rule["expr"] for rule in rules)]))

    assert set(used) <= NAMES


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(KeyError):
        expand("sum ({orders_totel})")


def test_every_metric_has_a_panel() -> None:
    used = set(METRIC_NAME.findall(" ".join(queries())))

    assert [metric for metric in list_metrics() if not used & set(metric.sample_names)] == []


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    text = (FOLDER / "alerts_test.yaml").read_text()

    assert [alert.name for alert in ALERTS if alert.name not in text] == []


def test_panels_do_not_overlap_and_have_their_own_ids() -> None:
    ids = [panel["id"] for panel in panels()]

    assert len(set(ids)) == len(ids)
    assert [pair for pair in combinations(panels(), 2) if overlap(*pair)] == []


def overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    a, b = first["gridPos"], second["gridPos"]
    return all(
        a[start] < b[start] + b[length] and b[start] < a[start] + a[length]
        for start, length in (("x", "w"), ("y", "h"))
    )
