"""Round, split and share amounts in minor units."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


def split_amount(amount: int, weights: Sequence[int]) -> list[int]:
    """Divide the amount in proportion to the weights, by the largest-remainder method.

    Of parts with equal remainders, the earlier parts of the sequence get the minor units that are
    left. The parts sum to the amount. If all weights are 0, all parts are 0.
    """
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    parts = [amount * weight // total for weight in weights]
    remainders = [amount * weight % total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: amount - sum(parts)]:
        parts[i] += 1
    return parts


def round_half_even(amount: Fraction) -> int:
    return round(amount)


def share_of_units(amount: int, quantity: int, first: int, units: int) -> int:
    """Return the share of `units` consecutive units in an amount of the whole line.

    `first` is the index of the first of these units. The amount is split equally over the
    `quantity` units of the line, and each of the first units gets one minor unit of the remainder.
    """
    return _share_before(amount, quantity, first + units) - _share_before(amount, quantity, first)


def _share_before(amount: int, quantity: int, units: int) -> int:
    part, left_over = divmod(amount, quantity)
    return part * units + min(units, left_over)


class LineShare(NamedTuple):
    """The amounts of some units of a line. `included_tax` is contained in `amount`."""

    price: int
    discount: int
    tax: int
    included_tax: int

    @property
    def amount(self) -> int:
        """The amount that the customer pays for these units."""
        return self.price - self.discount + self.tax
