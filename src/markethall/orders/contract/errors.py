"""The errors of orders."""

from markethall.shared.kernel.errors import DomainError


class OrderNotFound(DomainError):
    """The order does not exist or the caller may not see it. Details: order_id."""

    code = "orders.not_found"
    status = 404
    title = "There is no such order"


class FulfilmentNotFound(DomainError):
    """The fulfilment does not exist or the caller may not see it. Details: fulfilment_id."""

    code = "orders.fulfilment_not_found"
    status = 404
    title = "There is no such fulfilment"


class InvalidTransition(DomainError):
    """The status does not accept the command. Details: status, allowed (commands)."""

    code = "orders.invalid_transition"
    status = 409
    title = "The status does not allow this"


class TotalChanged(DomainError):
    """The total differs from `expected_total`. Details: total (Money), breakdown (its parts)."""

    code = "orders.total_changed"
    status = 409
    title = "The total is not what was expected"


class AddressChangesPrice(DomainError):
    """The shipping or the taxes of the order differ at the new address. Details: total (Money)."""

    code = "orders.address_changes_price"
    status = 409
    title = "The price is not the same at this address"


class EditNeedsCapture(DomainError):
    """The edit would raise the total of an order whose payment is authorized, but not captured.

    Capture the payment first. Details: total, paid (Money).
    """

    code = "orders.edit_needs_capture"
    status = 409
    title = "The payment must be captured before the order can cost more"


class EditOpen(DomainError):
    """An edit of the order waits for its payment. Details: edit_id, payment_id.

    Until the edit is paid or cancelled, or has expired, the order cannot be shipped or changed.
    """

    code = "orders.edit_open"
    status = 409
    title = "An edit of this order waits for its payment"


class EditApplied(DomainError):
    """The edit has taken effect already, so it cannot be cancelled. Details: edit_id."""

    code = "orders.edit_applied"
    status = 409
    title = "The edit has taken effect already"


class EditNotFound(DomainError):
    """The order has no edit with this id. Details: edit_id."""

    code = "orders.edit_not_found"
    status = 404
    title = "There is no such edit of this order"


class TooMuchToCancel(DomainError):
    """A cancellation has more units of a line than are unfulfilled.

    Units of lost and returned shipments count as unfulfilled. Details: lines (each with line_id,
    requested, unfulfilled).
    """

    code = "orders.too_much_to_cancel"
    status = 409
    title = "The quantity exceeds the unfulfilled quantity"


class TooMuchToFulfil(DomainError):
    """A shipment has more units of a line than are unfulfilled.

    Units of lost and returned shipments count as unfulfilled. Details: lines (each with line_id,
    requested, unfulfilled).
    """

    code = "orders.too_much_to_fulfil"
    status = 409
    title = "The quantity exceeds the unfulfilled quantity"
