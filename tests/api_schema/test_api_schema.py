"""Test that the API conforms to its OpenAPI document, with requests generated from it."""

from copy import deepcopy
from typing import Any

import pytest

from tests.api_schema.document import labels_of
from tests.api_schema.engine import run_schemathesis, seeded_app


# in a full run, the text of a scenario is longer than Hypothesis allows without a warning
@pytest.mark.filterwarnings(
    "ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning"
)
@pytest.mark.parametrize("caller", ["admin", "customer", "anonymous"])
def test_api_conforms_to_its_document(caller: str, capsys: pytest.CaptureFixture[str]) -> None:
    with seeded_app() as (app, shop):
        document = app.app.openapi()
        report = run_schemathesis(app, shop, caller, document)

    with capsys.disabled():
        print(f"\n{caller}: {report}")
    assert not report.failures, "\n\n".join(f"{a}\n{b}" for a, b in report.failures.items())
    assert report.operations == labels_of(document)


@pytest.mark.parametrize(
    ("bounds", "check"),
    [
        ({"maximum": 2000}, "positive_data_acceptance"),
        ({"maximum": 500}, "negative_data_rejection"),
    ],
)
def test_wrong_bound_in_the_document_is_found(bounds: dict[str, int], check: str) -> None:
    with seeded_app() as (app, shop):
        document: dict[str, Any] = deepcopy(app.app.openapi())
        document["paths"] = {"/warehouses": document["paths"]["/warehouses"]}
        document["components"]["schemas"]["NewWarehouse"]["properties"]["priority"] |= bounds
        report = run_schemathesis(app, shop, "admin", document)

    assert [name.split(": ")[:2] for name in report.failures] == [["POST /warehouses", check]]
