"""A shop with one entity of each kind, whose ids the generated requests use."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import requests

from tests.inventory.image_files import png

ADMIN: Final = {"admin_email": "admin@example.com", "admin_password": "an admin's long password"}
CUSTOMER: Final = "customer"
PASSWORD: Final = "correct horse 9"
MAX_WAIT_SECONDS: Final = 30


@dataclass(frozen=True)
class SeededShop:
    """Tokens by the kind of caller, and ids by the name of the path parameter."""

    tokens: dict[str, str]
    ids: dict[str, str]


class ShopSeeder:
    """Creates the entities through the API."""

    def __init__(self, http: requests.Session) -> None:
        self._http = http
        self._number = 0
        self._admin = self._sign_in(ADMIN["admin_email"], ADMIN["admin_password"])

    def seed(self) -> SeededShop:
        user = self._create_customer()
        customer = self._sign_in(CUSTOMER, PASSWORD)
        ids = {"user_id": user["user_id"], "sku": "TEA-1", "slug": "tea", "provider": "sandbox"}
        # only the daily job creates reconciliations, so there is none, and requests get 404
        ids["reconciliation_id"] = "0199c0de-0000-7000-8000-000000000001"
        ids |= self._create_catalogue()
        ids |= self._create_stock(ids["product_id"])
        ids |= self._create_shop_settings()
        ids |= self._create_cart(customer, ids["product_id"])
        ids |= self._create_draft_order(ids["product_id"])
        ids |= self._create_order(customer, ids["product_id"])
        return SeededShop({"admin": self._admin, "customer": customer}, ids)

    def _create_customer(self) -> dict[str, Any]:
        body = {"username": CUSTOMER, "email": "buyer@example.com", "password": PASSWORD}
        return self._post("/users", json=body)

    def _create_catalogue(self) -> dict[str, str]:
        category = self._post("/categories", json={"category": "tea"}, token=self._admin)
        product = {
            "sku": "TEA-1",
            "name": "Tea",
            "price": {"amount": 500, "currency": "EUR"},
            "family": "tea",
            "category": "tea",
        }
        made = self._post("/products", json=product, token=self._admin)
        started = self._post(
            "/imports",
            data='{"sku":"TEA-2","name":"Tea","price":{"amount":600,"currency":"EUR"}}\n',
            headers={"Content-Type": "application/x-ndjson"},
            token=self._admin,
        )
        self._wait_until(f"/imports/{started['import_id']}", lambda one: one["status"] == "done")
        files = {"file": ("tea.png", png(), "image/png")}
        image = self._post("/media", files=files, token=self._admin)
        return {
            "media_id": image["media_id"],
            "width": str(image["width"]),
            "category_id": category["category_id"],
            "product_id": made["product_id"],
            "import_id": started["import_id"],
        }

    def _create_stock(self, product_id: str) -> dict[str, str]:
        body: dict[str, Any] = {"delta": 100_000, "reason": "received"}
        path = f"/products/{product_id}/stock-adjustments"
        movement = self._post(path, json=body, token=self._admin)
        warehouse = self._post("/warehouses", json={"name": "Second"}, token=self._admin)
        body = {
            "product_id": product_id,
            "from_warehouse_id": movement["warehouse_id"],
            "to_warehouse_id": warehouse["warehouse_id"],
            "quantity": 10,
        }
        transfer = self._post("/stock-transfers", json=body, token=self._admin)
        body = {"lines": [{"product_id": product_id, "counted": 90_000}]}
        stocktake = self._post("/stocktakes", json=body, token=self._admin)
        return {
            "movement_id": movement["movement_id"],
            "warehouse_id": warehouse["warehouse_id"],
            "transfer_id": transfer["transfer_id"],
            "stocktake_id": stocktake["stocktake_id"],
        }

    def _create_shop_settings(self) -> dict[str, str]:
        rate = {"kind": "flat", "currency": "EUR", "price": 490}
        body: dict[str, Any] = {"code": "post", "name": "Post", "rate": rate}
        method = self._post("/shipping-methods", json=body, token=self._admin)
        body = {"country": "DE", "rate": "0.19", "name": "VAT"}
        tax_rate = self._post("/tax-rates", json=body, token=self._admin)
        body = {"name": "Spring", "kind": "percent", "percent": "10", "code": "SPRING"}
        promotion = self._post("/promotions", json=body, token=self._admin)
        return {
            "shipping_method_id": method["shipping_method_id"],
            "tax_rate_id": tax_rate["tax_rate_id"],
            "promotion_id": promotion["promotion_id"],
        }

    def _create_draft_order(self, product_id: str) -> dict[str, str]:
        body = {
            "email": "buyer@example.com",
            "lines": [{"product_id": product_id, "quantity": 1}],
            "shipping_address": "Market 1",
        }
        draft = self._post("/draft-orders", json=body, token=self._admin)
        return {"draft_order_id": draft["draft_order_id"]}

    def _create_cart(self, customer: str, product_id: str) -> dict[str, str]:
        lines = [{"product_id": product_id, "quantity": 1}]
        body = {"lines": lines, "shipping_address": "Market 1"}
        return {"cart_id": self._post("/carts", json=body, token=customer)["cart_id"]}

    def _create_order(self, customer: str, product_id: str) -> dict[str, str]:
        body: dict[str, Any] = {
            "product_id": product_id,
            "quantity": 5,
            "shipping_address": "Market 1",
        }
        order = self._post("/orders", json=body, token=customer)
        order_path, payment_id = f"/orders/{order['order_id']}", order["payment"]["payment_id"]
        body = {"payment_method": "sandbox_ok", "save_payment_method": True}
        self._post(f"/payments/{payment_id}/confirm", json=body, token=customer)
        (saved,) = self._get("/saved-payment-methods", customer)["items"]
        self._wait_until(order_path, lambda one: one["status"] == "processing")
        lines = [{"line_id": order["lines"][0]["line_id"], "quantity": 1}]
        body = {"lines": lines, "carrier": "DHL", "tracking_number": "1"}
        fulfilment = self._post(f"{order_path}/fulfilments", json=body, token=self._admin)
        return_id = self._create_return(order_path, lines)
        body = {"amount": {"amount": 100, "currency": "EUR"}, "reason": "damaged"}
        refund = self._post(f"/payments/{payment_id}/refunds", json=body, token=self._admin)
        return {
            "order_id": order["order_id"],
            "payment_id": payment_id,
            "fulfilment_id": fulfilment["fulfilment_id"],
            "return_id": return_id,
            # no edit waits for its payment, so the cancellation of an edit gets 404
            "edit_id": str(uuid4()),
            "refund_id": refund["refund_id"],
            "saved_payment_method_id": saved["saved_payment_method_id"],
        }

    def _create_return(self, order_path: str, lines: list[dict[str, Any]]) -> str:
        """Deliver another fulfilment of these lines, and request to return its units."""
        sent = self._post(f"{order_path}/fulfilments", json={"lines": lines}, token=self._admin)
        self._post(f"/fulfilments/{sent['fulfilment_id']}/deliver", token=self._admin)
        body = {"lines": lines, "reason": "does not fit"}
        made = self._post(f"{order_path}/returns", json=body, token=self._admin)
        return_id: str = made["return_id"]
        return return_id

    def _sign_in(self, name: str, password: str) -> str:
        token: str = self._post("/token", data={"username": name, "password": password})[
            "access_token"
        ]
        return token

    def _post(
        self, path: str, *, token: str = "", headers: dict[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        self._number += 1
        sent = {"Idempotency-Key": f"seed-{self._number}", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        return _content(self._http.post(path, headers=sent, **options))

    def _get(self, path: str, token: str) -> dict[str, Any]:
        return _content(self._http.get(path, headers={"Authorization": f"Bearer {token}"}))

    def _wait_until(self, path: str, is_done: Callable[[dict[str, Any]], bool]) -> None:
        """Poll the resource as admin. Raises TimeoutError."""
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while not is_done(self._get(path, self._admin)):
            if time.monotonic() > deadline:
                raise TimeoutError(path)
            time.sleep(0.02)


def _content(response: requests.Response) -> dict[str, Any]:
    assert response.ok, f"{response.status_code}: {response.text}"
    body: dict[str, Any] = response.json()
    return body
