"""The baselines of the benchmark; each runs as `python -m bench.baselines NAME`.

raw   an ASGI app with one constant body: the maximum rate of uvicorn.
sql   FastAPI and asyncpg, one statement per request, JSON text stored in Postgres: the maximum rate
      of these libraries without computation in Python.
same  like sql, with the statements and tables of the application.
purchase  a hand-written purchase, one statement per request: see purchase_baseline.py.
hand-written  a hand-written purchase with the guarantees of the application: see hand_written/.
"""

import argparse
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import FastAPI, Response

from . import purchase_baseline
from .hand_written.app import hand_written_app
from .hand_written.purchases import Limits

if TYPE_CHECKING:
    from markethall.shared.persistence.postgres import Statement

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

TABLES = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.products (product_id uuid PRIMARY KEY, body text NOT NULL);
CREATE TABLE bench.list_items (product_id uuid PRIMARY KEY, item text NOT NULL);
"""
PRODUCT = "SELECT body FROM bench.products WHERE product_id = $1"
# Postgres joins the rows, so that the measured server receives one string instead of 20 rows
PAGE = """
SELECT '{"items":[' || coalesce(string_agg(item, ','), '')
       || '],"next_cursor":"' || coalesce(max(product_id::text), '') || '"}'
FROM (SELECT product_id, item FROM bench.list_items
      WHERE product_id > $1 ORDER BY product_id LIMIT $2) AS page
"""
FIRST = UUID(int=0)


def raw_app(body: bytes) -> App:
    """Respond to every request with `body`."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    content: Message = {"type": "http.response.body", "body": body}

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await send(start)
        await send(content)

    return app


class _ConnectionWithoutReset(asyncpg.Connection):
    """A connection that is not reset when it returns to the pool, which saves a round trip."""

    def get_reset_query(self) -> str:
        return ""


def _app_with_pool(database_url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            database_url, min_size=10, max_size=10, connection_class=_ConnectionWithoutReset
        ) as app.state.pool:
            yield

    return FastAPI(lifespan=lifespan, openapi_url=None)


def sql_app(database_url: str) -> FastAPI:
    """Serve one row by primary key and one page by keyset, as stored text."""
    app = _app_with_pool(database_url)

    @app.get("/products/{product_id}")
    async def product(product_id: UUID) -> Response:
        return _json(await app.state.pool.fetchval(PRODUCT, product_id))

    @app.get("/products")
    async def page(limit: int = 20, after: UUID = FIRST) -> Response:
        return _json(await app.state.pool.fetchval(PAGE, after, limit))

    return app


def same_app(database_url: str) -> FastAPI:
    """Serve the results of the application's own statements, without its other code."""
    product_statement, page, family_statement = _application_statements()
    app = _app_with_pool(database_url)

    @app.get("/products/{product_id}")
    async def product(product_id: UUID) -> Response:
        sql, values = product_statement.bind({"product_id": product_id, "now": datetime.now(UTC)})
        return _json((await app.state.pool.fetchrow(sql, *values))["json"])

    @app.get("/products")
    async def products(limit: int = 20) -> Response:
        sql, values = page.bind({"limit": limit, "now": datetime.now(UTC)})
        return _json((await app.state.pool.fetchrow(sql, *values))["json"])

    @app.get("/families/{slug}")
    async def family(slug: str) -> Response:
        names = {"family_id": None, "product_id": None, "key": slug}
        sql, values = family_statement.bind({**names, "now": datetime.now(UTC)})
        row = await app.state.pool.fetchrow(sql, *values)
        return _json(f'{{"products":[{row["products"]}]}}')

    return app


def _application_statements() -> "tuple[Statement, Statement, Statement]":
    """Return the application's statements for a product, for the first page, and for a family."""
    from markethall.inventory.catalogue.contract.fields import ProductStatus
    from markethall.inventory.catalogue.sql.family_statements import GET_FAMILY
    from markethall.inventory.catalogue.sql.statements import GET_PRODUCT_JSON
    from markethall.inventory.search.sql.product_page_statements import (
        PageQueryShape,
        product_page_statement,
    )

    shape = PageQueryShape(
        frozenset(), ProductStatus.ACTIVE, "-created_at", size=20, after=False, terms=0
    )
    return GET_PRODUCT_JSON, product_page_statement(shape), GET_FAMILY


def _json(text: str | None) -> Response:
    if text is None:
        return Response(status_code=404)
    return Response(text, media_type="application/json")


def _hand_written_app(database_url: str) -> FastAPI:
    """Build the app with the public key of the environment, and the limits of the benchmark."""
    # high limits, as those of the measured application, because each customer places many orders
    limits = Limits(max_unpaid_orders=1_000_000, max_reserved_units=1_000_000)
    return hand_written_app(database_url, os.environ["BENCH_PUBLIC_KEY"].encode(), limits)


async def fill(database_url: str, products: dict[UUID, str], list_items: dict[UUID, str]) -> None:
    """Store the response bodies in the tables of the baselines."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(TABLES)
        await connection.copy_records_to_table(
            "products", schema_name="bench", records=list(products.items())
        )
        await connection.copy_records_to_table(
            "list_items", schema_name="bench", records=list(list_items.items())
        )
        await connection.execute(purchase_baseline.TABLES)
        await connection.execute(purchase_baseline.FILL, list(products))
        await connection.execute("VACUUM ANALYZE bench.products")
        await connection.execute("VACUUM ANALYZE bench.list_items")
    finally:
        await connection.close()


async def clear(database_url: str) -> None:
    """Drop the tables of the baselines."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("DROP SCHEMA IF EXISTS bench CASCADE")
    finally:
        await connection.close()


_APPS: Final[Mapping[str, Callable[[str], FastAPI]]] = {
    "sql": sql_app,
    "same": same_app,
    "purchase": purchase_baseline.purchase_app,
    "hand-written": _hand_written_app,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.baselines")
    parser.add_argument("name", choices=("raw", *_APPS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--body", type=Path, help="raw: a file with the response body")
    options = parser.parse_args()
    raw = options.name == "raw"
    app: Any = (
        raw_app(options.body.read_bytes())
        if raw
        else _APPS[options.name](os.environ["BENCH_DATABASE_URL"])
    )
    uvicorn.run(
        app,
        port=options.port,
        loop="uvloop",
        http="httptools",
        lifespan="off" if raw else "on",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
