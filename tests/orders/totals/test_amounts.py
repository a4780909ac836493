"""Test that amounts are split exactly, by the largest-remainder method."""

from hypothesis import given
from hypothesis import strategies as st

from markethall.orders.totals.domain import split_amount
from markethall.shared.kernel.model import MAX_AMOUNT

amounts = st.integers(-MAX_AMOUNT, MAX_AMOUNT)


@given(amounts, st.lists(st.integers(0, 10**12), min_size=1, max_size=50).filter(any))
def test_parts_sum_to_the_amount_and_are_less_than_one_unit_off(
    amount: int, weights: list[int]
) -> None:
    parts = split_amount(amount, weights)

    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - amount * weight) < sum(weights)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 9), min_size=2, max_size=9))
def test_zero_weight_gets_zero(amount: int, weights: list[int]) -> None:
    parts = split_amount(amount, weights)

    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


def test_largest_remainder_gets_the_odd_unit() -> None:
    assert split_amount(100, [1, 1, 1]) == [34, 33, 33]
    assert split_amount(10, [1, 2]) == [3, 7]
    assert split_amount(-10, [1, 1, 1]) == [-3, -3, -4]
