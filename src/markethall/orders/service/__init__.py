"""Orders, in this process: the promise kept, the listeners, the sweeper."""

from markethall.orders.service.checkout import Checkout as Checkout
from markethall.orders.service.checkout import ContextClients as ContextClients
from markethall.orders.service.checkout import ReservationPolicy as ReservationPolicy
from markethall.orders.service.desk import OrderService as OrderService
from markethall.orders.service.listeners import EVENT_HANDLERS as EVENT_HANDLERS
from markethall.orders.service.listeners import EventSubscription as EventSubscription
from markethall.orders.service.listeners import OrderEventHandlers as OrderEventHandlers
from markethall.orders.service.sweeper import OrderExpiryJob as OrderExpiryJob
