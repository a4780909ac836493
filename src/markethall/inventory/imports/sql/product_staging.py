"""Write many products: COPY them into a staging table, then write them with one statement.

The products are written in chunks: the process builds the rows of a chunk while the database writes
the previous chunk.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.catalogue.sql.store import product_to_row
from markethall.inventory.imports.sql import statements
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.persistence.postgres import Connection

# A chunk is small, because building it blocks the event loop, here for a few milliseconds. It is
# large enough that the round trip per chunk does not matter.
_CHUNK_ROWS: Final = 250
_STAGING_COLUMNS: Final = [*statements.STAGED_COLUMNS, "chunk_number", "row_number"]

StagedRecord = list[Any]


class ProductStaging:
    """The bulk write of one transaction. An instance can be used only once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._words_to_add: set[str] = set()
        self._write_task: asyncio.Task[int] | None = None
        self._added_count = 0

    async def write(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> int:
        """Write the products. Return the number of products that were inserted.

        A new product is skipped if another product has its SKU.
        """
        # sorted by the unique key, because transactions that insert the same SKUs in different
        # orders could deadlock
        new_products = sorted(new_products, key=lambda product: sku_key(product.sku))
        try:
            await self._start_write(self._create_table())
            for chunk_number, (products, are_new) in enumerate(
                _chunks(new_products, changed_products)
            ):
                records = self._build_records(products, chunk_number)
                await self._wait_for_write()
                await self._connection.copy_rows(
                    statements.STAGING_TABLE, _STAGING_COLUMNS, records
                )
                await self._start_write(self._write_chunk(chunk_number, are_new=are_new))
            await self._wait_for_write()
        finally:
            await self._cancel_write()
        await self._connection.execute(
            statements.ADD_NEW_WORDS, vocabulary=list(self._words_to_add)
        )
        return self._added_count

    def _build_records(self, products: Sequence[Product], chunk_number: int) -> list[StagedRecord]:
        records = []
        for row_number, product in enumerate(products):
            row = product_to_row(product)
            self._words_to_add.update(row["vocabulary"])
            records.append(
                [*(row[name] for name in statements.STAGED_COLUMNS), chunk_number, row_number]
            )
        return records

    async def _create_table(self) -> int:
        await self._connection.fetch_value(statements.CREATE_STAGING_TABLE)
        return 0

    async def _write_chunk(self, chunk_number: int, *, are_new: bool) -> int:
        """Write a chunk from the staging table. Return the number of inserted products."""
        if are_new:
            return await self._connection.execute(
                statements.ADD_STAGED_PRODUCTS,
                chunk_number=chunk_number,
                warehouse_id=MAIN_WAREHOUSE,
            )
        await self._connection.execute(statements.SAVE_STAGED_PRODUCTS, chunk_number=chunk_number)
        return 0

    async def _start_write(self, write: Coroutine[Any, Any, int]) -> None:
        self._write_task = asyncio.create_task(write)
        # let the task send its statement before this task builds the next chunk
        await asyncio.sleep(0)

    async def _wait_for_write(self) -> None:
        if self._write_task:
            self._added_count += await self._write_task
            self._write_task = None

    async def _cancel_write(self) -> None:
        """Stop the write after an error, and wait until its task no longer uses the connection."""
        if self._write_task:
            self._write_task.cancel()
            await asyncio.wait([self._write_task])
            if not self._write_task.cancelled():
                # retrieve the exception, because asyncio logs one that is never retrieved
                self._write_task.exception()


def _chunks(
    new_products: Sequence[Product], changed_products: Sequence[Product]
) -> Iterator[tuple[Sequence[Product], bool]]:
    for products in (changed_products, new_products):
        for start in range(0, len(products), _CHUNK_ROWS):
            yield products[start : start + _CHUNK_ROWS], products is new_products
