"""Test that sorting with temporary files gives the same rows as sorting in memory."""

import random
import tracemalloc

from pydantic import TypeAdapter

from markethall.shared.persistence.external_sort import ExternalSorter

NUMBERS = TypeAdapter(int)


async def sort(rows: list[int], max_rows: int) -> list[int]:
    with ExternalSorter(NUMBERS, key=lambda row: row, max_rows=max_rows) as sorter:
        for row in rows:
            await sorter.add(row)
        return [row async for row in sorter.sorted_rows()]


async def test_rows_are_sorted_across_files() -> None:
    rows = random.Random(1).choices(range(100), k=1000)

    assert await sort(rows, max_rows=7) == sorted(rows)
    assert await sort(rows, max_rows=1000) == sorted(rows)
    assert await sort(rows, max_rows=1001) == sorted(rows)
    assert await sort([], max_rows=7) == []


async def test_rows_in_files_take_no_memory() -> None:
    tracemalloc.start()
    try:
        with ExternalSorter(NUMBERS, key=lambda row: row, max_rows=100) as sorter:
            for row in range(20_000):
                await sorter.add(row + 10**9)
            current, _ = tracemalloc.get_traced_memory()
            count = sum([1 async for _ in sorter.sorted_rows()])
    finally:
        tracemalloc.stop()

    assert count == 20_000
    # bytes; the 200 open files have a small buffer each
    assert current < 1_500_000
