"""Test the choice of the warehouses that send the products of an order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.inventory.reservations.domain.allocation import FewestParcels, FreeStock
from markethall.inventory.stock.domain import StockQuantity

TEA, CUP, POT = (UUID(int=number) for number in (1, 2, 3))
A, B, C, D = (UUID(int=number) for number in (10, 11, 12, 13))


def free_stock(
    quantities: Mapping[UUID, Mapping[UUID, int]], first: UUID = A
) -> dict[UUID, list[FreeStock]]:
    """Build free stock by product. The warehouse `first` has priority 0, the others have 1."""
    return {
        product: [
            FreeStock(warehouse, int(warehouse != first), quantity)
            for warehouse, quantity in by_warehouse.items()
        ]
        for product, by_warehouse in quantities.items()
    }


def by_stock_row(plan: Sequence[StockQuantity] | None) -> dict[tuple[UUID, UUID], int]:
    assert plan is not None
    return {(part.product_id, part.warehouse_id): part.quantity for part in plan}


def test_one_warehouse_is_preferred_to_two() -> None:
    stock = free_stock({TEA: {A: 1, B: 3}, CUP: {A: 5, B: 1}})

    plan = FewestParcels().plan({TEA: 2, CUP: 1}, stock)

    assert by_stock_row(plan) == {(TEA, B): 2, (CUP, B): 1}


def test_lower_priority_number_wins_for_equal_warehouse_count() -> None:
    stock = free_stock({TEA: {A: 9, B: 9, C: 9}}, first=C)

    assert by_stock_row(FewestParcels().plan({TEA: 2}, stock)) == {(TEA, C): 2}


def test_product_is_not_split_if_one_warehouse_suffices() -> None:
    stock = free_stock({TEA: {A: 2, B: 3}, CUP: {A: 1}})

    plan = FewestParcels().plan({TEA: 3, CUP: 1}, stock)

    assert by_stock_row(plan) == {(TEA, B): 3, (CUP, A): 1}


def test_quantity_above_one_warehouse_is_split() -> None:
    stock = free_stock({TEA: {A: 2, B: 3, C: 1}})

    assert by_stock_row(FewestParcels().plan({TEA: 5}, stock)) == {(TEA, A): 2, (TEA, B): 3}


@pytest.mark.parametrize("quantities", [{}, {TEA: {}}, {TEA: {A: 1, B: 1}}, {TEA: {A: -2, B: 3}}])
def test_insufficient_stock_gives_no_plan(quantities: Mapping[UUID, Mapping[UUID, int]]) -> None:
    assert FewestParcels().plan({TEA: 4}, free_stock(quantities)) is None


def test_plan_is_in_stock_row_lock_order() -> None:
    stock = free_stock({TEA: {A: 1, B: 1, C: 1}, CUP: {B: 2}}, first=C)

    plan = FewestParcels().plan({TEA: 3, CUP: 1}, stock)

    assert [(part.product_id, part.warehouse_id) for part in plan or ()] == [
        (TEA, A), (TEA, B), (TEA, C), (CUP, B),
    ]  # fmt: skip


def test_many_warehouses_give_a_plan_within_search_limit() -> None:
    everywhere = {UUID(int=100 + number): 1 for number in range(60)}
    stock = free_stock({TEA: everywhere})

    plan = FewestParcels().plan({TEA: 40}, stock)

    assert len(by_stock_row(plan)) == 40


QUANTITIES = st.dictionaries(st.sampled_from([A, B, C, D]), st.integers(0, 4))
STOCK = st.fixed_dictionaries({TEA: QUANTITIES, CUP: QUANTITIES, POT: QUANTITIES})
REQUESTS = st.dictionaries(st.sampled_from([TEA, CUP, POT]), st.integers(1, 6), min_size=1).map(
    lambda requested: dict(sorted(requested.items()))
)


@given(requested=REQUESTS, quantities=STOCK)
def test_plan_covers_request_with_fewest_warehouses(
    requested: dict[UUID, int], quantities: dict[UUID, dict[UUID, int]]
) -> None:
    plan = FewestParcels().plan(requested, free_stock(quantities))

    fewest = next(
        (
            size
            for size in range(1, 5)
            for chosen in combinations((A, B, C, D), size)
            if all(sum(quantities[p].get(w, 0) for w in chosen) >= n for p, n in requested.items())
        ),
        None,
    )
    assert (plan is None) == (fewest is None)
    if plan is not None:
        planned = by_stock_row(plan)
        assert len(planned) == len(plan)
        assert all(0 < quantity <= quantities[p][w] for (p, w), quantity in planned.items())
        total: Counter[UUID] = Counter()
        for (product, _), quantity in planned.items():
            total[product] += quantity
        assert dict(total) == requested
        assert len({warehouse for _, warehouse in planned}) == fewest
