"""The payment methods that the shop offers, and their limits."""

import pytest

from markethall.payments.contract import PaymentStatus, UnknownPaymentMethod
from markethall.payments.gateway.sandbox import SANDBOX_METHODS
from markethall.payments.ports import (
    OperationRequest,
    Outcome,
    PaymentGateway,
    PaymentMethod,
    Succeeded,
)
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.provider_connection import ProviderLimits
from markethall.shared.kernel.money import Money
from tests.payments.conftest import PaymentsApp
from tests.payments.test_router import Client, assert_problem, client

__all__ = ["client"]

METHODS = [
    PaymentMethod(method="cash", name="Cash", instructions="Pay at the counter."),
    PaymentMethod(method="yen", name="Yen", currencies=frozenset({"JPY"})),
    PaymentMethod(method="dutch", name="Dutch", countries=frozenset({"NL", "BE"})),
    PaymentMethod(method="small", name="Small", max_total=Money(amount=500, currency="EUR")),
]


class LimitedGateway(PaymentGateway):
    provider = "limited"

    def accepts(self, method: str) -> bool:
        return method in {"cash", "yen", "dutch", "small"}

    def list_methods(self) -> list[PaymentMethod]:
        return METHODS

    async def charge(self, request: OperationRequest) -> Outcome:
        return Succeeded("1")

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        return None

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        raise NotImplementedError("no test loses an answer of this gateway")


@pytest.fixture
def limited(payments_app: PaymentsApp) -> None:
    offered = ProviderClient([LimitedGateway()], ProviderLimits())
    payments_app.replace_provider_client(offered)


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    ("query", "offered"),
    [
        ("", {"cash", "yen", "dutch", "small"}),
        ("?currency=JPY", {"cash", "yen", "dutch"}),
        ("?currency=EUR", {"cash", "dutch", "small"}),
        ("?country=DE", {"cash", "yen", "small"}),
        ("?currency=EUR&total=500", {"cash", "dutch", "small"}),
        ("?currency=EUR&total=501&country=NL", {"cash", "dutch"}),
        ("?currency=EUR&total=501&country=FR", {"cash"}),
        ("?currency=EUR&total=0", {"free"}),
    ],
)
async def test_methods_are_filtered(client: Client, query: str, offered: set[str]) -> None:
    response = await client.http.get(f"/payment-methods{query}")

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert {method["method"] for method in response.json()["items"]} == offered


@pytest.mark.usefixtures("limited")
async def test_method_is_described(client: Client) -> None:
    response = await client.http.get("/payment-methods?country=FR&currency=EUR")

    assert response.json()["items"][0] == {
        "method": "cash",
        "provider": "limited",
        "name": "Cash",
        "instructions": "Pay at the counter.",
    }


async def test_methods_of_all_providers_are_offered_to_anyone(client: Client) -> None:
    response = await client.http.get("/payment-methods?currency=EUR&country=NL&total=5000")
    abroad = await client.http.get("/payment-methods?currency=EUR&country=BE&total=5000")

    methods = [(one["provider"], one["method"]) for one in response.json()["items"]]
    assert methods == [
        *(("sandbox", method) for method in SANDBOX_METHODS),
        ("manual", "manual:bank_transfer"),
        ("manual", "manual:cash_on_delivery"),
    ]
    assert abroad.json()["items"] == response.json()["items"][:-1]


@pytest.mark.parametrize(
    "query",
    ["currency=eur", "currency=XXZ", "country=ZZ", "total=5", "currency=EUR&total=-1", "amount=1"],
)
async def test_invalid_query_is_refused(client: Client, query: str) -> None:
    assert_problem(await client.http.get(f"/payment-methods?{query}"), 422, "request.invalid")


@pytest.mark.usefixtures("limited")
async def test_method_of_another_country_is_refused(payments_app: PaymentsApp) -> None:
    abroad = await payments_app.open(country="DE")
    at_home = await payments_app.open(country="NL")
    unknown = await payments_app.open()

    with pytest.raises(UnknownPaymentMethod):
        await payments_app.confirm(abroad, "dutch")

    assert await payments_app.current(abroad) == abroad
    for payment in (at_home, unknown):
        assert (await payments_app.confirm(payment, "dutch")).status is PaymentStatus.CAPTURED


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("method", ["yen", "small"])
async def test_method_that_is_not_offered_is_refused(
    payments_app: PaymentsApp, method: str
) -> None:
    payment = await payments_app.open(501)

    with pytest.raises(UnknownPaymentMethod):
        await payments_app.confirm(payment, method)

    assert await payments_app.current(payment) == payment
    paid = await payments_app.confirm(payment, "cash")
    assert (paid.status, paid.provider) == (PaymentStatus.CAPTURED, "limited")
