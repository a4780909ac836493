"""Runs `markethall demo --storefront` as a process, and adds products for its pages."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import httpx2
from PIL import Image

from tests.e2e.servers import ADMIN, RunningServer

XSS_NAME: Final = "<img src=x onerror=\"document.title='attacked'\">"
_SHIRT_STOCK: Final = {"S": 2, "M": 50, "L": 4}


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


def add_products(server: RunningServer) -> None:
    """Add shirts, a teapot, a product with markup in its texts, and one without stock."""
    username, password = ADMIN
    form = {"grant_type": "password", "username": username, "password": password}
    token = httpx2.post(server.url("/token"), data=form).json()["access_token"]
    with httpx2.Client(headers={"Authorization": f"Bearer {token}"}) as admin:
        for colour in ("white", "blue"):
            for size, stock in _SHIRT_STOCK.items():
                product = _shirt(colour, size)
                _add(admin, server, product, 0 if (colour, size) == ("blue", "L") else stock)
        images = [_uploaded_image(admin, server)]
        pot = {"sku": "POT", "name": "Teapot", "category": "kitchen", "images": images}
        _add(admin, server, pot, 5)
        markup = {"description": XSS_NAME, "category": "kitchen", "tags": [XSS_NAME]}
        _add(admin, server, {"sku": "XSS", "name": XSS_NAME, **markup}, 5)
        _add(admin, server, {"sku": "GONE", "name": "Sold Lamp", "category": "lamps"}, 0)


def _uploaded_image(admin: httpx2.Client, server: RunningServer) -> str:
    """Upload a picture of 320 x 240 pixels, and return its path."""
    file = BytesIO()
    Image.new("RGB", (320, 240), "teal").save(file, "PNG")
    files = {"file": ("pot.png", file.getvalue(), "image/png")}
    uploaded = admin.post(server.url("/media"), files=files)
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


def _add(
    admin: httpx2.Client, server: RunningServer, product: Mapping[str, Any], stock: int
) -> None:
    price = {"amount": 4990, "currency": "EUR"}
    created = admin.post(server.url("/products"), json={"price": price, **product})
    assert created.status_code == 201, created.text
    if stock:
        admin.post(
            server.url(f"/products/{created.json()['product_id']}/stock-adjustments"),
            json={"delta": stock, "reason": "received"},
            headers={"Idempotency-Key": product["sku"]},
        ).raise_for_status()
