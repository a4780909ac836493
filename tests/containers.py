"""Access to the dependency injection container of each built-in context, with its exact type."""

from markethall.container import ApplicationContainer
from markethall.inventory.container import InventoryContainer
from markethall.orders.container import OrdersContainer
from markethall.payments.container import PaymentsContainer
from markethall.users.container import UsersContainer


def users_of(container: ApplicationContainer) -> UsersContainer:
    return container.context("users", UsersContainer)


def inventory_of(container: ApplicationContainer) -> InventoryContainer:
    return container.context("inventory", InventoryContainer)


def orders_of(container: ApplicationContainer) -> OrdersContainer:
    return container.context("orders", OrdersContainer)


def payments_of(container: ApplicationContainer) -> PaymentsContainer:
    return container.context("payments", PaymentsContainer)
