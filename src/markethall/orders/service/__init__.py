"""Orders, in this process: the promise kept, the listeners, the sweeper."""

from markethall.orders.service.checkout import Checkout as Checkout
from markethall.orders.service.checkout import Neighbours as Neighbours
from markethall.orders.service.checkout import Terms as Terms
from markethall.orders.service.desk import OrderService as OrderService
from markethall.orders.service.listeners import LISTENERS as LISTENERS
from markethall.orders.service.listeners import Listener as Listener
from markethall.orders.service.listeners import OrderListeners as OrderListeners
from markethall.orders.service.sweeper import OverdueOrders as OverdueOrders
