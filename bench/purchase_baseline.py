"""A hand-written purchase for comparison: two endpoints on FastAPI and asyncpg.

Each request is one statement, which has its whole effect or none: the stock never becomes negative,
a key has one effect and one answer, and the posting balances. There are no tokens, no other rules,
no events and no provider. So the baseline shows the cost of the libraries and of Postgres.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated
from uuid import UUID, uuid4

import asyncpg
from fastapi import FastAPI, Header, Response
from pydantic import BaseModel, Field

TABLES = """
CREATE TABLE bench.stock (
  product_id uuid PRIMARY KEY, price bigint NOT NULL,
  on_hand bigint NOT NULL, reserved bigint NOT NULL DEFAULT 0,
  CHECK (reserved BETWEEN 0 AND on_hand));
CREATE TABLE bench.orders (
  order_id uuid PRIMARY KEY, owner text NOT NULL, product_id uuid NOT NULL,
  quantity bigint NOT NULL, total bigint NOT NULL, status text NOT NULL, address jsonb NOT NULL);
CREATE TABLE bench.payments (
  payment_id uuid PRIMARY KEY, order_id uuid NOT NULL UNIQUE, amount bigint NOT NULL,
  status text NOT NULL);
CREATE TABLE bench.entries (
  payment_id uuid NOT NULL, account text NOT NULL, amount bigint NOT NULL);
CREATE TABLE bench.answers (key text PRIMARY KEY, body text NOT NULL);
"""
FILL = """
INSERT INTO bench.stock (product_id, price, on_hand) SELECT unnest($1::uuid[]), 1999, 10000000
"""
PLACE = """
WITH taken AS (
  UPDATE bench.stock SET reserved = reserved + $4
  WHERE product_id = $3 AND on_hand - reserved >= $4 RETURNING price * $4 AS total),
placed AS (
  INSERT INTO bench.orders SELECT $1, $2, $3, $4, total, 'pending', $7::text::jsonb FROM taken
  RETURNING total),
opened AS (
  INSERT INTO bench.payments SELECT $5, $1, total, 'created' FROM placed RETURNING amount)
INSERT INTO bench.answers SELECT $6, json_build_object('order_id', $1::uuid, 'status', 'pending',
  'total', amount, 'payment', json_build_object('payment_id', $5::uuid))::text FROM opened
RETURNING body
"""
CONFIRM = """
WITH paid AS (
  UPDATE bench.payments SET status = 'captured'
  WHERE payment_id = $1 AND status = 'created' RETURNING order_id, amount),
processing AS (
  UPDATE bench.orders SET status = 'processing' FROM paid
  WHERE orders.order_id = paid.order_id),
posted AS (
  INSERT INTO bench.entries SELECT $1, account, sign * amount
  FROM paid, (VALUES ('provider', 1), ('customers', -1)) AS sides (account, sign))
INSERT INTO bench.answers SELECT $2, json_build_object('payment_id', $1::uuid, 'status', 'captured',
  'amount', amount)::text FROM paid
RETURNING body
"""
ANSWER = "SELECT body FROM bench.answers WHERE key = $1"

Key = Annotated[str, Header(alias="idempotency-key")]


class _Line(BaseModel):
    product_id: UUID
    quantity: int = Field(ge=1)


class _Order(BaseModel):
    lines: list[_Line] = Field(min_length=1, max_length=1)
    shipping_address: dict[str, str]


class _Confirm(BaseModel):
    payment_method: str


def purchase_app(database_url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=10, max_size=10) as app.state.pool:
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    async def answer(status: int, key: str, sql: str, *values: object) -> Response:
        """Run the statement, or return the answer that the key has already."""
        body = None
        with suppress(asyncpg.UniqueViolationError):
            body = await app.state.pool.fetchval(sql, *values)
        if body is None:
            body = await app.state.pool.fetchval(ANSWER, key)
        if body is None:
            return Response(status_code=409)
        return Response(body, status, media_type="application/json")

    @app.get("/products")
    async def products() -> list[str]:
        return []

    @app.post("/orders")
    async def place(order: _Order, key: Key, authorization: Annotated[str, Header()]) -> Response:
        line, address = order.lines[0], json.dumps(order.shipping_address)
        ids = uuid4(), authorization, line.product_id, line.quantity, uuid4()
        return await answer(201, key, PLACE, *ids, key, address)

    @app.post("/payments/{payment_id}/confirm")
    async def confirm(payment_id: UUID, _: _Confirm, key: Key) -> Response:
        return await answer(200, key, CONFIRM, payment_id, key)

    return app
