"""Serves the application with one broken implementation.

python -m tests.acidrain.broken.server serve --port 8000 lost_update_of_voucher
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from dependency_injector import providers

from markethall.app import Gateway
from markethall.container import ApplicationContainer
from markethall.inventory.sql import STATEMENTS as INVENTORY_STATEMENTS
from markethall.inventory.sql import TrigramSupport
from markethall.orders.service.checkout import Checkout
from markethall.orders.sql import STATEMENTS as ORDERS_STATEMENTS
from markethall.secret_keys import load_or_create_secrets
from markethall.server import GracefulServer, listen_sockets, server_config
from markethall.settings import read_settings
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.observability import log
from tests.acidrain.broken.carts import ChargeThenReadLines, CloseCartLater
from tests.acidrain.broken.stock import CheckThenReserveStore
from tests.acidrain.broken.vouchers import LostUpdateOrderStore
from tests.containers import inventory_of, orders_of


def break_voucher(container: ApplicationContainer) -> None:
    orders = orders_of(container)
    broken = providers.Singleton(
        build_sql_persistence,
        orders.postgres,
        ORDERS_STATEMENTS,
        LostUpdateOrderStore,
        orders.clock,
    )
    orders.sql_persistence.override(broken)


def break_stock(container: ApplicationContainer) -> None:
    inventory = inventory_of(container)
    broken = providers.Singleton(
        build_sql_persistence,
        inventory.postgres,
        INVENTORY_STATEMENTS,
        partial(CheckThenReserveStore, trigrams=TrigramSupport()),
        inventory.clock,
    )
    inventory.sql_persistence.override(broken)


def break_cart(container: ApplicationContainer, checkout: type[Checkout]) -> None:
    orders = orders_of(container)
    broken = providers.Singleton(
        checkout,
        orders.clients,
        orders.database,
        orders.pricing,
        orders.reservation_policy,
        orders.clock,
    )
    orders.checkout.override(broken)


IMPLEMENTATIONS: Final[Mapping[str, Callable[[ApplicationContainer], None]]] = {
    "lost_update_of_voucher": break_voucher,
    "check_then_reserve": break_stock,
    "close_cart_later": partial(break_cart, checkout=CloseCartLater),
    "charge_then_read_lines": partial(break_cart, checkout=ChargeThenReadLines),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("implementation", choices=IMPLEMENTATIONS)
    arguments = parser.parse_args()
    settings = read_settings()
    log.configure(settings.log_format, settings.log_level)
    secrets = load_or_create_secrets(settings)

    def build_container() -> ApplicationContainer:
        container = ApplicationContainer(settings, secrets)
        IMPLEMENTATIONS[arguments.implementation](container)
        return container

    with listen_sockets("127.0.0.1", arguments.port, None) as sockets:
        config = server_config(Gateway(settings, build_container), settings)
        GracefulServer(config).run(sockets)


if __name__ == "__main__":
    main()
