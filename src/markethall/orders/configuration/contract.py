"""The fields and errors that all kinds of configuration items share."""

from datetime import datetime

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto

# the largest number of items of one kind, because the items of all kinds are read together
MAX_ITEMS = 2000


class ItemView(Dto):
    """A configuration item. The subclass of each kind adds the fields of this kind."""

    version: int
    created_at: datetime


class TooManyItems(DomainError):
    """The shop already has the maximum number of items of this kind. Details: limit."""

    code = "orders.too_many_items"
    status = 409
    title = "There are too many items of this kind"
