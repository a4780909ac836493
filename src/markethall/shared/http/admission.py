"""ASGI middleware that limits how many requests run at the same time in this process.

A request needs slots in bulkheads. The middleware runs inside the response cache, so cached
responses need no slot. If no slot is free, the request waits in a short queue. It is refused with
503, before its body is read, if the queue is full or slow (see Bulkhead), or if the request has
waited in it for half of `max_wait_seconds`. A client that already runs too many requests gets 429
at once.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from markethall.shared.http.bulkheads import (
    Bulkhead,
    ClientSlots,
    HeldClientSlots,
    RejectionLog,
    Slots,
)
from markethall.shared.http.work_kinds import READ_METHODS, SEARCHES, WorkKind, WorkKinds
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.client_network import client_network
from markethall.shared.kernel.held_slots import HELD_SLOTS
from markethall.shared.kernel.wait_budget import (
    MAX_WAIT_SECONDS,
    STATEMENT_TIMEOUT,
    WAIT_BUDGET,
    WaitBudget,
)

# The maximum number of waiting requests for each slot. A short queue keeps the slots busy; a longer
# one would only delay its last requests.
_WAITING_PER_SLOT: Final = 4
# number of its client's search slots that one facet search takes
_SLOTS_OF_FACET_SEARCH: Final = 2
# while its body arrives, a request holds its slots for at most this time
_FAST_BODY_SECONDS: Final = 0.05
_READS: Final = SEARCHES | {WorkKind.READ}


@dataclass(frozen=True)
class AdmissionLimits:
    """Maximum numbers of requests that run at the same time.

    `requests` counts all requests except the long ones; `reads` includes the searches. If
    `per_client` is None, none of the limits per client applies.
    """

    requests: int
    reads: int
    searches: int
    long_requests: int = 16
    per_client: int | None = None
    searches_per_client: int = 4
    long_requests_per_client: int = 4
    # the maximum sum of all waits of a request; one wait for a slot takes at most half of this
    max_wait_seconds: float = MAX_WAIT_SECONDS
    # the maximum time of each statement of a read without a token; None: only the general timeout
    # of the database applies
    anonymous_statement_seconds: float | None = None

    @property
    def facet_searches(self) -> int:
        """Return the maximum number of facet searches: half of the searches, but at least one."""
        return max(1, self.searches // 2)

    @classmethod
    def for_pool(
        cls,
        connections: int,
        requests: int | None,
        per_client: int | None,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        anonymous_statement_seconds: float | None = None,
    ) -> "AdmissionLimits":
        """Return limits for a pool of database connections.

        Searches use at most a quarter of the connections, and reads three quarters, so that slow
        reads leave connections to the writes. If `requests` is None, the limit is the number of
        connections: more requests would only wait for connections, and many would end late.
        """
        total = requests or connections
        return cls(
            requests=total,
            reads=min(total, max(1, connections * 3 // 4)),
            searches=min(total, max(1, connections // 4)),
            long_requests=max(cls.long_requests, total),
            per_client=per_client,
            max_wait_seconds=max_wait_seconds,
            anonymous_statement_seconds=anonymous_statement_seconds,
        )


class AdmissionMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        limits: AdmissionLimits,
        kinds: WorkKinds,
        exempt_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._limits = limits
        self._kinds = kinds
        self._exempt_paths = exempt_paths
        rejections = RejectionLog()
        self.clients = ClientSlots(rejections)
        self.bulkheads = _bulkheads_of(limits, rejections)

    def refuse_if_full(self, scope: Scope) -> None:
        """Raise Overloaded for a write if no slot is free and the queue accepts no more requests.

        The gateway calls this before it verifies the token and counts the request for the rate
        limits, so that a rejection costs little. Reads are not refused here, because the response
        cache may answer them.
        """
        if scope["method"] in READ_METHODS or scope["path"] in self._exempt_paths:
            return
        if self._kinds.kind_of(scope) is WorkKind.WRITE:
            for bulkhead in self.bulkheads[WorkKind.WRITE]:
                bulkhead.refuse_if_full()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._exempt_paths:
            await self._app(scope, receive, send)
            return
        kind = self._kinds.kind_of(scope)
        if kind is WorkKind.LONG and not _client_is_known(scope):
            # without a valid token, the route rejects the request before its body is read, so it
            # must not take the slot of an upload
            kind = WorkKind.WRITE
        slots = Slots(self.bulkheads[kind])
        # a long request may wait long for its client, so its waits are not limited
        budget = WAIT_BUDGET.set(
            None if kind is WorkKind.LONG else WaitBudget(self._limits.max_wait_seconds)
        )
        timeout = STATEMENT_TIMEOUT.set(self._statement_seconds(kind, scope))
        held = HELD_SLOTS.set(None)
        try:
            with self._client_slots(kind, scope) as client_slots:
                await slots.enter()
                HELD_SLOTS.set(RequestSlots(slots, client_slots))
                if kind is WorkKind.WRITE:
                    receive = _without_slots(slots, receive)
                if kind is not WorkKind.LONG:
                    send = _leaving(slots, send)
                await self._app(scope, receive, send)
        finally:
            slots.leave()
            WAIT_BUDGET.reset(budget)
            STATEMENT_TIMEOUT.reset(timeout)
            HELD_SLOTS.reset(held)

    def _statement_seconds(self, kind: WorkKind, scope: Scope) -> float | None:
        if kind not in _READS or _client_is_known(scope):
            return None
        return self._limits.anonymous_statement_seconds

    def _client_slots(
        self, kind: WorkKind, scope: Scope
    ) -> AbstractContextManager[HeldClientSlots | None]:
        limits = self._limits
        if limits.per_client is None or "service_identity" in scope["state"]:
            return nullcontext()
        count = 1
        match kind:
            case WorkKind.SEARCH:
                name, limit = "search", limits.searches_per_client
            case WorkKind.FACET_SEARCH:
                name, limit, count = "search", limits.searches_per_client, _SLOTS_OF_FACET_SEARCH
            case WorkKind.LONG:
                name, limit = "long", limits.long_requests_per_client
            case _:
                name, limit = "other", limits.per_client
        return self.clients.slots(name, _client_of(scope), limit, count)


class RequestSlots:
    """All slots of one request: those in the bulkheads, and those of its client."""

    def __init__(self, slots: Slots, client_slots: HeldClientSlots | None) -> None:
        self._slots = slots
        self._client_slots = client_slots

    def leave(self) -> None:
        self._slots.leave()
        if self._client_slots:
            self._client_slots.leave()

    def leave_shared(self) -> None:
        self._slots.leave()

    async def enter(self) -> None:
        """Take the slots again. Raises Overloaded."""
        if self._client_slots:
            self._client_slots.enter()
        await self._slots.enter()


def _bulkheads_of(
    limits: AdmissionLimits, rejections: RejectionLog
) -> Mapping[WorkKind, tuple[Bulkhead, ...]]:
    total = _with_queue("requests", limits.requests, limits, rejections)
    reads = _with_queue("reads", limits.reads, limits, rejections)
    searches = _with_queue("searches", limits.searches, limits, rejections)
    facets = _with_queue("facets", limits.facet_searches, limits, rejections)
    return {
        WorkKind.FACET_SEARCH: (facets, searches, reads, total),
        WorkKind.SEARCH: (searches, reads, total),
        WorkKind.READ: (reads, total),
        WorkKind.WRITE: (total,),
        WorkKind.LONG: (Bulkhead("long", limits.long_requests, rejections),),
    }


def _with_queue(
    name: str, slots: int, limits: AdmissionLimits, rejections: RejectionLog
) -> Bulkhead:
    return Bulkhead(name, slots, rejections, slots * _WAITING_PER_SLOT, limits.max_wait_seconds / 2)


def _without_slots(slots: Slots, receive: Receive) -> Receive:
    """Return a `receive` that releases the slots while it waits for a slow client.

    Its first call reads the whole body. If that takes longer than _FAST_BODY_SECONDS, it releases
    the slots, and takes slots again when the body is complete, which may raise Overloaded. A
    request with a faster body keeps its slots, so that it does not wait in the queue twice.
    """
    has_body = False

    async def receive_body() -> Message:
        nonlocal has_body
        if has_body:
            return await receive()
        has_body = True
        timer = asyncio.get_running_loop().call_later(_FAST_BODY_SECONDS, slots.leave)
        try:
            message = await receive()
        finally:
            timer.cancel()
        if not slots.are_taken:
            await slots.enter()
        return message

    return receive_body


def _leaving(slots: Slots, send: Send) -> Send:
    """Return a `send` that first releases the slots, because a client may receive slowly."""

    async def leave_and_send(message: Message) -> None:
        slots.leave()
        await send(message)

    return leave_and_send


def _client_is_known(scope: Scope) -> bool:
    actor: Actor = scope["state"]["actor"]
    return actor.is_authenticated or "service_identity" in scope["state"]


def _client_of(scope: Scope) -> str:
    actor: Actor = scope["state"]["actor"]
    # a guest counts as its network, because a client can create any number of guests
    if actor.user_id and not actor.is_guest:
        return f"user:{actor.user_id}"
    return client_network(scope["state"]["client_ip"])
