"""The provider that docs/writing-a-payment-provider.md builds passes the conformance suite."""

import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from markethall.payments.ports import GatewayManifest, OperationRequest, Outcome, PaymentGateway
from markethall.shared.composition.settings import read_one
from markethall.shared.kernel.errors import MalformedRequest
from markethall.testing import GatewayTestbed, PaymentGatewayConformance, ProviderTotals

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-payment-provider.md"
KEY = "key-of-the-tests"


def load_example() -> dict[str, Any]:
    """Execute the Python file that the page contains. Return its global names."""
    found = re.search(
        r"<!-- the file markethall_acorn.py -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert found
    names: dict[str, Any] = {"__name__": "markethall_acorn"}
    exec(compile(found[1], str(PAGE), "exec"), names)  # noqa: S102 - our own document
    return names


EXAMPLE = load_example()


class AcornServer:
    """A fake of the HTTP API of Acorn, the provider in the documentation."""

    def __init__(self) -> None:
        self.operations: dict[str, dict[str, Any]] = {}
        self.charges: dict[str, dict[str, Any]] = {}
        self.loses_answer = False

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        _, kind, operation_id, *block = request.url.path.split("/")
        if request.method == "PUT" and operation_id not in self.operations:
            effect = self._charge if kind == "charges" else self._refund
            self.operations[operation_id] = effect(operation_id, json.loads(request.content))
        if block:
            self.operations.setdefault(operation_id, {"status": "blocked"})
        if self.loses_answer:
            self.loses_answer = False
            raise httpx2.ReadTimeout("the answer was lost", request=request)
        found = self.operations.get(operation_id)
        return httpx2.Response(200 if found else 404, json=found or {})

    def _charge(self, operation_id: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["token"] == "declined":
            return {"status": "failed", "code": "card_declined"}
        self.charges[operation_id] = body | {"refunded": 0}
        return {"status": "succeeded", "reference": f"ac_{operation_id}"}

    def _refund(self, operation_id: str, body: dict[str, Any]) -> dict[str, Any]:
        charge = self.charges.get(body["charge"])
        if charge is None or charge["currency"] != body["currency"]:
            return {"status": "failed", "code": "no_such_charge"}
        if charge["refunded"] + body["amount"] > charge["amount"]:
            return {"status": "failed", "code": "too_much"}
        charge["refunded"] += body["amount"]
        return {"status": "succeeded", "reference": f"re_{operation_id}"}


class AcornTestbed(GatewayTestbed):
    method = "acorn:card"
    declined_method = "acorn:declined"

    def __init__(self) -> None:
        self.server = AcornServer()
        http = httpx2.AsyncClient(
            base_url="https://acorn.example",
            headers={"authorization": f"Bearer {KEY}"},
            transport=httpx2.MockTransport(self.server),
        )
        self.gateway: PaymentGateway = EXAMPLE["AcornGateway"](http, KEY.encode())

    async def totals(self, charge_id: UUID) -> ProviderTotals:
        charge = self.server.charges.get(str(charge_id))
        return ProviderTotals(charge["amount"], charge["refunded"]) if charge else ProviderTotals()

    def lose_next_answer(self) -> None:
        self.server.loses_answer = True

    def webhook_body(self, request: OperationRequest, outcome: Outcome) -> bytes:
        answer = self.server.operations[str(request.operation_id)]
        event = {"id": f"ev_{request.operation_id}", "operation": str(request.operation_id)}
        return json.dumps(event | answer).encode()

    def sign_webhook(self, body: bytes, sent_at: datetime) -> Mapping[str, str]:
        sent = str(int(sent_at.timestamp()))
        signature = hmac.digest(KEY.encode(), sent.encode() + b"." + body, "sha256").hex()
        return {"acorn-time": sent, "acorn-signature": signature}


class TestAcornConformance(PaymentGatewayConformance):
    @pytest.fixture
    def testbed(self) -> GatewayTestbed:
        return AcornTestbed()


async def test_event_with_an_unknown_status_is_refused() -> None:
    """An unreadable event must be refused before it is stored, because a job parses it again."""
    testbed = AcornTestbed()
    event = {"id": "ev_1", "operation": str(testbed.charge_request().operation_id)}
    body = json.dumps(event | {"status": "pending"}).encode()
    headers = testbed.sign_webhook(body, testbed.NOW)

    with pytest.raises(MalformedRequest):
        testbed.gateway.parse_event(headers, body, testbed.NOW)


async def test_manifest_builds_the_gateway() -> None:
    manifest: GatewayManifest = EXAMPLE["MANIFEST"]
    settings = read_one(manifest.settings, {"acorn_key": KEY})

    gateway = manifest.build(None, settings)  # type: ignore[arg-type]  # this gateway uses no tools

    assert (gateway.provider, manifest.name) == ("acorn", "acorn")
    assert [method.method for method in gateway.list_methods()] == ["acorn:card"]
    await gateway.close()
