"""Test that the API does what its OpenAPI document says, with requests made from the document."""

import pytest

from tests.api_schema.document import labels_of
from tests.api_schema.engine import run_schemathesis, seeded_app


@pytest.mark.parametrize("caller", ["admin", "customer", "anonymous"])
def test_api_conforms_to_its_document(caller: str, capsys: pytest.CaptureFixture[str]) -> None:
    with seeded_app() as (app, shop):
        report = run_schemathesis(app, shop, caller)

    with capsys.disabled():
        print(f"\n{caller}: {report}")
    assert not report.failures, "\n\n".join(f"{a}\n{b}" for a, b in report.failures.items())
    assert report.operations == labels_of(app.app.openapi())
