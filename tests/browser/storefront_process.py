"""Runs `markethall demo --storefront` as a process, and adds products for its pages."""

import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import httpx2
from PIL import Image

from tests.e2e.servers import ADMIN

XSS_NAME: Final = "<img src=x onerror=\"document.title='attacked'\">"
_SHIRT_STOCK: Final = {"S": 2, "M": 200, "L": 4}
_SHIPPING: Final = (
    {"code": "parcel", "name": "Parcel", "delivery": "2 to 3 working days", "price": 490},
    {"code": "express", "name": "Express", "delivery": None, "price": 1290},
)


@contextmanager
def running_storefront(folder: Path, port: int, api: str) -> Iterator[Path]:
    """Run the command until the block ends. Return its output, once it serves the pages."""
    output = folder / "storefront.log"
    command = [sys.executable, "-m", "markethall", "demo", "--storefront"]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--api", api], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_served(f"http://127.0.0.1:{port}/config.json", process)
        yield output
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_served(url: str, process: subprocess.Popen[bytes]) -> None:
    transport = httpx2.HTTPTransport(retries=10)
    with httpx2.Client(transport=transport, timeout=30) as client:
        assert client.get(url).status_code == 200
    assert process.poll() is None


@dataclass(frozen=True)
class Staff:
    """Calls the API as the admin. Each call signs in, so that no token expires between tests."""

    api: str

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx2.Response:
        username, password = ADMIN
        form = {"grant_type": "password", "username": username, "password": password}
        with httpx2.Client(base_url=self.api, timeout=60) as http:
            token = http.post("/token", data=form).json()["access_token"]
            authorization = {"Authorization": f"Bearer {token}"}
            return http.request(
                method, path, headers={**authorization, **(headers or {})}, **content
            )

    def get(self, path: str) -> httpx2.Response:
        response = self.request("GET", path)
        assert response.status_code == 200, response.text
        return response

    def post(self, path: str, body: Mapping[str, Any], status: int = 201) -> Any:
        key = {"Idempotency-Key": secrets.token_hex(8)}
        response = self.request("POST", path, key, json=dict(body))
        assert response.status_code == status, response.text
        return response.json()

    def patch(self, path: str, **fields: object) -> None:
        etag = self.get(path).headers["ETag"]
        response = self.request("PATCH", path, {"If-Match": etag}, json=fields)
        assert response.status_code == 200, response.text

    def change_product(self, sku: str, **fields: object) -> None:
        self.patch(f"/products/{self._product_id(sku)}", **fields)

    def change_stock(self, sku: str, delta: int) -> None:
        path = f"/products/{self._product_id(sku)}/stock-adjustments"
        self.post(path, {"delta": delta, "reason": "adjusted"})

    def _product_id(self, sku: str) -> str:
        return str(self.get(f"/products/by-sku/{sku}").json()["product_id"])

    def add_shirt(self, sku: str, *, stock: int = 5) -> None:
        """Add a product that is alone in its family."""
        price = {"amount": 4990, "currency": "EUR"}
        product = {"sku": sku, "name": f"Shirt {sku}", "price": price, "family": sku.lower()}
        self.post("/products", product)
        self.change_stock(sku, stock)


def add_products(staff: Staff) -> None:
    """Add shirts, a teapot, a product with markup in its texts, and one without stock."""
    for colour in ("white", "blue"):
        for size, stock in _SHIRT_STOCK.items():
            product = _shirt(colour, size)
            _add(staff, product, 0 if (colour, size) == ("blue", "L") else stock)
    images = [_uploaded_image(staff)]
    pot = {"sku": "POT", "name": "Teapot", "category": "kitchen", "images": images}
    _add(staff, pot, 5)
    markup = {"description": XSS_NAME, "category": "kitchen", "tags": [XSS_NAME]}
    _add(staff, {"sku": "XSS", "name": XSS_NAME, **markup}, 5)
    _add(staff, {"sku": "GONE", "name": "Sold Lamp", "category": "lamps"}, 0)


def add_prices(staff: Staff) -> None:
    """Add two shipping methods, a tax that prices include, and the voucher SPRING10."""
    for method in _SHIPPING:
        rate = {"kind": "flat", "currency": "EUR", "price": method["price"]}
        fields = {name: method[name] for name in ("code", "name", "delivery")}
        staff.post("/shipping-methods", {**fields, "rate": rate})
    staff.post("/tax-rates", {"country": "DE", "rate": "0.19", "name": "VAT"})
    voucher = {"name": "Spring", "kind": "percent", "percent": "10", "code": "SPRING10"}
    staff.post("/promotions", voucher)


def _uploaded_image(staff: Staff) -> str:
    """Upload a picture of 320 x 240 pixels, and return its path."""
    file = BytesIO()
    Image.new("RGB", (320, 240), "teal").save(file, "PNG")
    files = {"file": ("pot.png", file.getvalue(), "image/png")}
    uploaded = staff.request("POST", "/media", files=files)
    assert uploaded.status_code == 201, uploaded.text
    return str(uploaded.json()["url"])


def _shirt(colour: str, size: str) -> dict[str, Any]:
    return {
        "sku": f"SHIRT-{colour}-{size}",
        "name": f"Linen Shirt, {colour}, {size}",
        "description": "A shirt of washed linen.",
        "category": "shirts",
        "family": "linen-shirt",
        "options": {"colour": colour, "size": size},
        "attributes": {"material": "linen", "organic": True},
    }


def _add(staff: Staff, product: Mapping[str, Any], stock: int) -> None:
    staff.post("/products", {"price": {"amount": 4990, "currency": "EUR"}, **product})
    if stock:
        staff.change_stock(product["sku"], stock)
