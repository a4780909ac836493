"""Use cases, event handlers and jobs of orders."""

from markethall.orders.service.api import OrderService as OrderService
from markethall.orders.service.checkout import Checkout as Checkout
from markethall.orders.service.checkout import ContextClients as ContextClients
from markethall.orders.service.checkout import ReservationPolicy as ReservationPolicy
from markethall.orders.service.event_handlers import OrderEventHandlers as OrderEventHandlers
from markethall.orders.service.integrity import OrderIntegrity as OrderIntegrity
from markethall.orders.service.jobs import PendingOrdersJob as PendingOrdersJob
from markethall.orders.service.payment_changes import PaymentDeadlines as PaymentDeadlines
