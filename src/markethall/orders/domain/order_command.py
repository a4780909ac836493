"""The commands that change the status of an order."""

from enum import StrEnum


class OrderCommand(StrEnum):
    PAY = "pay"
    CANCEL = "cancel"
    CANCEL_LINES = "cancel_lines"
    EXPIRE = "expire"
    REINSTATE = "reinstate"
    CHANGE_ADDRESS = "change_address"
    EDIT = "edit"
    FULFIL = "fulfil"
    DELIVER = "deliver"
    FAIL_SHIPMENT = "fail_shipment"
    COMPLETE = "complete"
