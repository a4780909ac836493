"""From which warehouses an order is sent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.inventory.reservations.domain.allocation import FewestParcels, FreeStock
from markethall.inventory.stock.domain.stock import StockQuantity

TEA, CUP, POT = (UUID(int=number) for number in (1, 2, 3))
A, B, C, D = (UUID(int=number) for number in (10, 11, 12, 13))


def shelves(of: Mapping[UUID, Mapping[UUID, int]], first: UUID = A) -> dict[UUID, list[FreeStock]]:
    """Units per product and warehouse; one warehouse comes before all others."""
    return {
        product: [FreeStock(where, int(where != first), units) for where, units in there.items()]
        for product, there in of.items()
    }


def sent(goods: Sequence[StockQuantity] | None) -> dict[tuple[UUID, UUID], int]:
    assert goods is not None
    return {(some.product_id, some.warehouse_id): some.quantity for some in goods}


def test_one_warehouse_is_preferred_to_two() -> None:
    there = shelves({TEA: {A: 1, B: 3}, CUP: {A: 5, B: 1}})

    goods = FewestParcels().plan({TEA: 2, CUP: 1}, there)

    assert sent(goods) == {(TEA, B): 2, (CUP, B): 1}


def test_lower_priority_number_wins_for_equal_warehouse_count() -> None:
    there = shelves({TEA: {A: 9, B: 9, C: 9}}, first=C)

    assert sent(FewestParcels().plan({TEA: 2}, there)) == {(TEA, C): 2}


def test_product_is_not_split_if_one_warehouse_suffices() -> None:
    there = shelves({TEA: {A: 2, B: 3}, CUP: {A: 1}})

    goods = FewestParcels().plan({TEA: 3, CUP: 1}, there)

    assert sent(goods) == {(TEA, B): 3, (CUP, A): 1}


def test_quantity_above_one_warehouse_is_split() -> None:
    there = shelves({TEA: {A: 2, B: 3, C: 1}})

    assert sent(FewestParcels().plan({TEA: 5}, there)) == {(TEA, A): 2, (TEA, B): 3}


@pytest.mark.parametrize("there", [{}, {TEA: {}}, {TEA: {A: 1, B: 1}}, {TEA: {A: -2, B: 3}}])
def test_insufficient_stock_gives_no_plan(there: Mapping[UUID, Mapping[UUID, int]]) -> None:
    assert FewestParcels().plan({TEA: 4}, shelves(there)) is None


def test_plan_is_in_stock_row_lock_order() -> None:
    there = shelves({TEA: {A: 1, B: 1, C: 1}, CUP: {B: 2}}, first=C)

    goods = FewestParcels().plan({TEA: 3, CUP: 1}, there)

    assert [(some.product_id, some.warehouse_id) for some in goods or ()] == [
        (TEA, A), (TEA, B), (TEA, C), (CUP, B),
    ]  # fmt: skip


def test_many_warehouses_give_a_plan_within_search_limit() -> None:
    everywhere = {UUID(int=100 + number): 1 for number in range(60)}
    there = shelves({TEA: everywhere})

    goods = FewestParcels().plan({TEA: 40}, there)

    assert len(sent(goods)) == 40


UNITS = st.dictionaries(st.sampled_from([A, B, C, D]), st.integers(0, 4))
THERE = st.fixed_dictionaries({TEA: UNITS, CUP: UNITS, POT: UNITS})
WANTS = st.dictionaries(st.sampled_from([TEA, CUP, POT]), st.integers(1, 6), min_size=1).map(
    lambda wants: dict(sorted(wants.items()))
)


@given(wants=WANTS, there=THERE)
def test_plan_covers_request_with_fewest_warehouses(
    requested: dict[UUID, int], there: dict[UUID, dict[UUID, int]]
) -> None:
    goods = FewestParcels().plan(requested, shelves(there))

    fewest = next(
        (
            size
            for size in range(1, 5)
            for chosen in combinations((A, B, C, D), size)
            if all(sum(there[p].get(w, 0) for w in chosen) >= n for p, n in requested.items())
        ),
        None,
    )
    assert (goods is None) == (fewest is None)
    if goods is not None:
        planned = sent(goods)
        assert len(planned) == len(goods)
        assert all(0 < units <= there[p][w] for (p, w), units in planned.items())
        total: Counter[UUID] = Counter()
        for (product, _), units in planned.items():
            total[product] += units
        assert dict(total) == requested
        assert len({warehouse for _, warehouse in planned}) == fewest
