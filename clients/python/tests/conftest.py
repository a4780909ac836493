"""A shop in memory, on a free port of the loopback interface, for one test run."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO
from uuid import UUID

import pytest

from markethall_client import Markethall, new_key
from markethall_client.models import (
    Adjustment,
    AdjustmentReason,
    Currency,
    NewProduct,
    NewProductOptions,
    Price,
    RegisterRequest,
)
from markethall_client.operations import adjust_stock, create_product, register_user

COMMAND = os.environ.get("SHOP_COMMAND", str(Path(__file__).parents[3] / ".venv/bin/markethall"))
ADMIN_EMAIL = "admin@example.com"
ADMIN_PASSWORD = "open sesame, staff only"
PRICE = Price(1250, Currency.EUR)
PASSWORD = "a long and quiet sentence"


@dataclass(frozen=True)
class Shop:
    """The address of the shop, and the product that customers order."""

    base_url: str
    tea_id: UUID

    def admin(self) -> Markethall:
        """Return a client that is signed in as the admin."""
        admin = Markethall(self.base_url)
        admin.login(ADMIN_EMAIL, ADMIN_PASSWORD)
        return admin

    def register(self, username: str) -> None:
        body = RegisterRequest(username, f"{username}@example.com", PASSWORD)
        with Markethall(self.base_url) as client:
            client.call(register_user(body=body, idempotency_key=new_key()))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with five units of tea and four cups; it is ended by its process id."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "MARKETHALL_ADMIN_EMAIL": ADMIN_EMAIL,
        "MARKETHALL_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "MARKETHALL_BCRYPT_COST": "4",
        # for uploaded images
        "MARKETHALL_DATA_DIR": str(tmp_path_factory.mktemp("shop")),
    }
    command = [COMMAND, "serve", "--memory", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            base_url = bound_address(process)
            yield Shop(base_url, add_products(base_url))
        finally:
            process.terminate()


def bound_address(process: subprocess.Popen[str]) -> str:
    """Read the address from the banner; fail if the process ends before it is printed."""
    assert process.stderr is not None
    printed = []
    for line in process.stderr:
        printed.append(line)
        if found := re.search(r"API: +(http:\S+)", line):
            # so that the shop never waits for a full pipe
            Thread(target=read_all, args=[process.stderr], daemon=True).start()
            return found[1]
    pytest.fail("the shop has not started:\n" + "".join(printed))


def read_all(stream: IO[str]) -> None:
    for _ in stream:
        pass


def add_products(base_url: str) -> UUID:
    with Markethall(base_url) as admin:
        admin.login(ADMIN_EMAIL, ADMIN_PASSWORD)
        for number in range(1, 5):
            size = NewProductOptions.from_dict({"size": str(number)})
            add_product(admin, NewProduct(f"CUP-{number}", f"Cup {number}", PRICE, options=size), 1)
        return add_product(admin, NewProduct("TEA-1", "Green tea", PRICE), 5)


def add_product(admin: Markethall, body: NewProduct, stock: int) -> UUID:
    product = admin.call(create_product(body=body, idempotency_key=new_key()))
    received = Adjustment(AdjustmentReason.RECEIVED, delta=stock)
    admin.call(adjust_stock(product.product_id, body=received, idempotency_key=new_key()))
    return product.product_id
