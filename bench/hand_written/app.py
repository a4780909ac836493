"""The FastAPI application of the hand-written purchase."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Final
from uuid import UUID

import asyncpg
from fastapi import Depends, FastAPI, Header, Request, Response

from .background import BackgroundTask
from .models import ConfirmedPayment, ConfirmRequest, OrderRequest, PlacedOrder, Problem
from .purchases import Limits, Purchases, Rejected
from .tables import SCHEMA
from .tokens import TokenInvalid, TokenVerifier

# the defaults of the application
MIN_CONNECTIONS: Final = 5
MAX_CONNECTIONS: Final = 20
_PROBLEM: Final = "application/problem+json"

Key = Annotated[str, Header(alias="idempotency-key", pattern="^[!-~]{1,255}$")]


async def _authenticate(request: Request, authorization: Annotated[str, Header()] = "") -> UUID:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise TokenInvalid
    verifier: TokenVerifier = request.app.state.verifier
    return verifier.verify(token)


def _purchases(request: Request) -> Purchases:
    purchases: Purchases = request.app.state.purchases
    return purchases


CustomerId = Annotated[UUID, Depends(_authenticate)]


def hand_written_app(
    database_url: str, public_key: bytes, limits: Limits | None = None, poll_seconds: float = 1
) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _open_pool(database_url) as pool:
            background = BackgroundTask(pool, poll_seconds)
            purchases = Purchases(pool, limits or Limits(), background.notify)
            app.state.purchases = purchases
            task = asyncio.create_task(background.run(purchases))
            yield
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.verifier = TokenVerifier(public_key)
    app.add_exception_handler(Rejected, _send_rejection)
    app.add_exception_handler(TokenInvalid, _send_unauthenticated)

    @app.get("/products")
    async def products() -> list[str]:
        return []

    @app.post("/orders")
    async def place(
        request: Request, body: OrderRequest, customer_id: CustomerId, key: Key
    ) -> Response:
        placed = await _purchases(request).place(customer_id, key, body)
        view = PlacedOrder.model_validate_json(placed)
        return Response(view.model_dump_json(), 201, media_type="application/json")

    @app.post("/payments/{payment_id}/confirm")
    async def confirm(
        request: Request,
        payment_id: UUID,
        body: ConfirmRequest,
        customer_id: CustomerId,
        key: Key,
    ) -> Response:
        confirmed = await _purchases(request).confirm(customer_id, key, payment_id, body)
        view = ConfirmedPayment.model_validate_json(confirmed)
        return Response(view.model_dump_json(), media_type="application/json")

    return app


def _open_pool(database_url: str) -> "asyncpg.Pool[asyncpg.Record]":
    return asyncpg.create_pool(
        database_url,
        min_size=MIN_CONNECTIONS,
        max_size=MAX_CONNECTIONS,
        reset=_keep_session,
        server_settings={"search_path": SCHEMA},
    )


async def _keep_session(_: object) -> None:
    """Do nothing when a connection returns to the pool, which saves a round trip.

    The application does the same.
    """


async def _send_rejection(_: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)
    problem = error.problem
    return Response(problem.model_dump_json(), problem.status, media_type=_PROBLEM)


async def _send_unauthenticated(_: Request, _error: Exception) -> Response:
    problem = Problem(status=401, code="unauthenticated")
    headers = {"WWW-Authenticate": "Bearer"}
    return Response(problem.model_dump_json(), 401, headers, media_type=_PROBLEM)
