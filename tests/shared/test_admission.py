"""Test admission: a few requests run, a few more wait, and the rest are refused immediately."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from markethall.shared.http.admission import AdmissionLimits, AdmissionMiddleware
from markethall.shared.http.bulkheads import Bulkhead, RejectionLog
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.http.work_kinds import WorkKind, WorkKinds
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Overloaded
from markethall.shared.kernel.wait_budget import (
    STATEMENT_TIMEOUT,
    WAIT_BUDGET,
    WaitBudget,
    wait_within_budget,
)
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.redis_client import RedisClient
from tests.shared.cache_fixtures import Clock, until
from tests.shared.test_gateway import JSON, HttpResponse, gateway, send_request

KINDS = WorkKinds(
    {"/products": frozenset({"q", "facets"})},
    [r"/exports/[^/]+"],
    {"/imports"},
    {"/products": frozenset({"facets"})},
)
ALICE, BOB = ("authorization", "Bearer good"), ("x-none", "")
SEARCH, FACETS = b"q=tea", b"facets=category"


class Workshop:
    """An application that counts requests, and completes none until a test sets `may_finish`."""

    def __init__(self) -> None:
        self.at_work: defaultdict[str, int] = defaultdict(int)
        self.started = 0
        self.bodies_read = 0
        self.may_finish = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] == "POST":
            await receive()
            self.bodies_read += 1
        self.started += 1
        self.at_work[path] += 1
        try:
            await self.may_finish.wait()
            await JSONResponse({})(scope, receive, send)
        finally:
            self.at_work[path] -= 1


class Shop:
    """A gateway with admission in front of a `Workshop`, and the requests that a test started."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.workshop = Workshop()
        self.admission = AdmissionMiddleware(self.workshop, limits, KINDS, {"/health"})
        self.app = gateway(self.admission)
        self.requests: list[asyncio.Task[HttpResponse]] = []

    def start(self, method: str, path: str, count: int = 1, **arguments: Any) -> None:
        for _ in range(count):
            request = send_request(self.app, method, path, b"{}", **{"headers": [JSON]} | arguments)
            self.requests.append(asyncio.create_task(request))

    async def refused(self, count: int) -> list[HttpResponse]:
        """Wait until `count` requests have a response, and return the responses.

        Only refused requests have one, because the others still run or wait for a slot.
        """
        await until(lambda: sum(request.done() for request in self.requests) >= count)
        return [request.result() for request in self.requests if request.done()]

    async def finish(self) -> list[int]:
        self.workshop.may_finish.set()
        return [response.status for response in await asyncio.gather(*self.requests)]


def rejections(reason: str) -> float:
    return REGISTRY.get_sample_value("markethall_http_rejected_total", {"reason": reason}) or 0


async def test_requests_beyond_the_bound_are_refused_while_the_others_work() -> None:
    shop = Shop(AdmissionLimits(requests=5, reads=3, searches=1, max_wait_seconds=120))
    before = rejections("requests")

    shop.start("POST", "/orders", 5 + 20 + 7)
    refused = await shop.refused(7)

    assert shop.workshop.at_work == {"/orders": 5}
    assert [response.status for response in refused] == [503] * 7
    assert refused[0].code == "system.busy"
    assert refused[0].headers["retry-after"] == "1"
    assert rejections("requests") - before == 7
    assert sorted(await shop.finish()) == [200] * 25 + [503] * 7


async def test_refused_request_does_not_read_its_body() -> None:
    shop = Shop(AdmissionLimits(requests=1, reads=1, searches=1, max_wait_seconds=120))

    shop.start("POST", "/orders", 1 + 4 + 8)
    await shop.refused(8)

    assert shop.workshop.bodies_read == 1
    await shop.finish()


async def test_refused_write_is_neither_authenticated_nor_counted() -> None:
    class Verifier:
        verified = 0

        async def verify(self, _: str) -> Actor:
            self.verified += 1
            return Actor()

    verifier, workshop = Verifier(), Workshop()
    limits = AdmissionLimits(requests=1, reads=1, searches=1, max_wait_seconds=120)
    admission = AdmissionMiddleware(workshop, limits, KINDS)
    app = GatewayMiddleware(
        admission,
        GatewayConfig(2048, 5, (), {}),
        TokenVerifiers(lambda: verifier),
        RateLimiter("on", RedisClient(None)),
        admission.refuse_if_full,
    )
    requests = [
        asyncio.create_task(send_request(app, "POST", "/orders", b"{}", headers=[JSON, ALICE]))
        for _ in range(1 + 4 + 8)
    ]
    await until(lambda: sum(request.done() for request in requests) == 8)
    refused = [request.result() for request in requests if request.done()]

    assert {(each.status, "ratelimit" in each.headers) for each in refused} == {(503, False)}
    assert verifier.verified == 1 + 4
    workshop.may_finish.set()
    assert [(await request).status for request in requests].count(200) == 5


async def test_write_whose_body_is_there_waits_for_its_slot_only_once() -> None:
    started = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await receive()
        started.append(scope["path"])
        await asyncio.sleep(0)
        await JSONResponse({})(scope, receive, send)

    limits = AdmissionLimits(requests=1, reads=1, searches=1, max_wait_seconds=120)
    gated = gateway(AdmissionMiddleware(app, limits, KINDS))
    requests = [("POST", "/1"), ("POST", "/2"), ("DELETE", "/3"), ("POST", "/4"), ("DELETE", "/5")]
    await asyncio.gather(
        *(send_request(gated, method, path, b"{}", headers=[JSON]) for method, path in requests)
    )

    # a POST that waited for a slot again after its body was read would start after later requests
    assert started == ["/1", "/2", "/3", "/4", "/5"]


async def test_slots_are_free_after_errors_and_cancellations() -> None:
    shop = Shop(AdmissionLimits(requests=2, reads=1, searches=1, per_client=2))
    shop.start("GET", "/products", query=SEARCH)
    shop.start("POST", "/orders")
    await until(lambda: shop.workshop.started == 2)

    for request in shop.requests:
        request.cancel()
    await asyncio.gather(*shop.requests, return_exceptions=True)

    assert {
        bulkhead.in_use for chain in shop.admission.bulkheads.values() for bulkhead in chain
    } == {0}
    assert shop.admission.clients.in_use == {}


async def test_body_that_arrives_slowly_holds_no_slot() -> None:
    shop = Shop(AdmissionLimits(requests=1, reads=1, searches=1))
    shop.start("POST", "/orders", 3, is_stalled=True)
    await asyncio.sleep(0)

    shop.start("POST", "/carts")

    await until(lambda: shop.workshop.at_work["/carts"] == 1)
    assert not any(request.done() for request in shop.requests)
    for request in shop.requests[:3]:
        request.cancel()
    shop.workshop.may_finish.set()
    assert (await shop.requests[3]).status == 200


async def test_response_that_is_received_slowly_holds_no_slot() -> None:
    admission = AdmissionMiddleware(
        JSONResponse({}), AdmissionLimits(requests=1, reads=1, searches=1), KINDS
    )
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/products",
        "query_string": b"",
        "state": {"actor": Actor()},
    }
    is_sending = asyncio.Event()

    async def send(message: Message) -> None:
        is_sending.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        raise AssertionError("a GET has no body")

    slow = asyncio.create_task(admission(scope, receive, send))
    await is_sending.wait()

    assert [bulkhead.in_use for bulkhead in admission.bulkheads[WorkKind.READ]] == [0, 0]
    slow.cancel()


async def test_searches_and_reads_leave_slots_to_writes() -> None:
    shop = Shop(AdmissionLimits(requests=10, reads=4, searches=2, max_wait_seconds=600))
    before = rejections("searches"), rejections("reads")

    shop.start("GET", "/products", 30, query=SEARCH)
    shop.start("GET", "/categories", 30)
    shop.start("POST", "/orders", 6)
    await until(lambda: shop.workshop.started == 10)
    refused = await shop.refused(32)

    # 2 searches run and 8 wait; 2 other reads run and 16 wait
    assert shop.workshop.at_work == {"/products": 2, "/categories": 2, "/orders": 6}
    assert {response.status for response in refused} == {503}
    assert (rejections("searches") - before[0], rejections("reads") - before[1]) == (20, 12)
    assert (await shop.finish()).count(200) == 10 + 18 + 6


async def test_client_has_a_bounded_number_of_requests_at_work() -> None:
    shop = Shop(AdmissionLimits(requests=100, reads=50, searches=20, per_client=16))
    before = rejections("client")

    shop.start("POST", "/orders", 50, headers=[JSON, ALICE])
    refused = await shop.refused(34)
    for number in range(9):
        shop.start("POST", "/carts", peer=f"192.0.2.{number + 10}")
    await until(lambda: shop.workshop.at_work["/carts"] == 9)

    assert shop.workshop.at_work["/orders"] == 16
    assert {response.status for response in refused} == {429}
    assert refused[0].json["details"]["policy"] == "concurrency"
    assert refused[0].headers["retry-after"] == "1"
    assert rejections("client") - before == 34
    assert (await shop.finish()).count(200) == 16 + 9


async def test_addresses_of_one_network_are_one_client() -> None:
    shop = Shop(AdmissionLimits(requests=100, reads=50, searches=20, per_client=2))

    for number in range(5):
        shop.start("POST", "/orders", peer=f"2001:db8::{number}")
    refused = await shop.refused(3)

    assert {response.status for response in refused} == {429}
    await shop.finish()


async def test_client_has_few_searches_at_once() -> None:
    shop = Shop(AdmissionLimits(requests=100, reads=50, searches=20, per_client=16))

    shop.start("GET", "/products", 24, query=b"%71=tea")
    shop.start("GET", "/orders")
    refused = await shop.refused(20)

    assert shop.workshop.at_work == {"/products": 4, "/orders": 1}
    assert {response.status for response in refused} == {429}
    await shop.finish()


async def test_facet_search_counts_as_two_searches_of_its_client() -> None:
    shop = Shop(AdmissionLimits(requests=100, reads=50, searches=20, per_client=16))

    shop.start("GET", "/products", 24, query=b"%66acets=category")
    shop.start("GET", "/products", 1, query=SEARCH)
    refused = await shop.refused(23)

    assert shop.workshop.at_work == {"/products": 2}
    assert {response.status for response in refused} == {429}
    await shop.finish()
    assert shop.admission.clients.in_use == {}


async def test_facet_searches_leave_slots_to_other_searches() -> None:
    shop = Shop(AdmissionLimits(requests=20, reads=15, searches=5, max_wait_seconds=600))
    before = rejections("facets")

    shop.start("GET", "/products", 24, query=FACETS)
    await shop.refused(14)
    shop.start("GET", "/products", 3, query=SEARCH)

    # two facet searches run and eight wait; the three other searches run
    await until(lambda: shop.workshop.at_work["/products"] == 2 + 3)
    assert rejections("facets") - before == 14
    await shop.finish()


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "seconds"),
    [
        ("GET", "/products", b"", [], 0.7),
        ("GET", "/products", SEARCH, [], 0.7),
        ("GET", "/products", FACETS, [], 0.7),
        ("GET", "/products", SEARCH, [ALICE], None),
        ("GET", "/exports/products.csv", b"", [], None),
        ("POST", "/orders", b"", [JSON], None),
    ],
)
async def test_only_statements_of_reads_without_token_have_shorter_timeout(
    method: str, path: str, query: bytes, headers: list[tuple[str, str]], seconds: float | None
) -> None:
    timeouts = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        timeouts.append(STATEMENT_TIMEOUT.get())
        await JSONResponse({})(scope, receive, send)

    limits = AdmissionLimits(requests=9, reads=9, searches=9, anonymous_statement_seconds=0.7)
    admission = AdmissionMiddleware(app, limits, KINDS)
    await send_request(gateway(admission), method, path, b"{}", headers=headers, query=query)

    assert timeouts == [seconds]
    assert STATEMENT_TIMEOUT.get() is None


async def test_long_requests_have_their_own_slots() -> None:
    shop = Shop(AdmissionLimits(requests=1, reads=1, searches=1, long_requests=2))
    shop.start("GET", "/exports/products.csv", 2, headers=[JSON, ALICE])
    shop.start("POST", "/imports", 2, headers=[JSON, ALICE])
    refused = await shop.refused(2)

    shop.start("POST", "/orders")
    await until(lambda: shop.workshop.at_work["/orders"] == 1)

    assert shop.workshop.started == 3
    assert {response.status for response in refused} == {503}
    await shop.finish()


async def test_request_without_token_takes_no_slot_of_an_upload() -> None:
    shop = Shop(AdmissionLimits(requests=3, reads=1, searches=1, long_requests=1))
    shop.start("POST", "/imports", 3)
    await until(lambda: shop.workshop.at_work["/imports"] == 3)

    shop.start("POST", "/imports", headers=[JSON, ALICE])

    await until(lambda: shop.workshop.at_work["/imports"] == 4)
    await shop.finish()


async def test_probes_need_no_slot() -> None:
    shop = Shop(AdmissionLimits(requests=1, reads=1, searches=1))
    shop.start("POST", "/orders")
    shop.start("GET", "/health", 30)

    await until(lambda: shop.workshop.at_work == {"/orders": 1, "/health": 30})

    await shop.finish()


@pytest.mark.parametrize(
    ("method", "path", "query", "kind"),
    [
        ("GET", "/products", b"", WorkKind.READ),
        ("GET", "/products", b"limit=5", WorkKind.READ),
        ("GET", "/products", b"q=tea", WorkKind.SEARCH),
        ("GET", "/products/", b"q=tea", WorkKind.SEARCH),
        ("GET", "/products", b"limit=5&%71=tea", WorkKind.SEARCH),
        ("GET", "/products", b"facets=category", WorkKind.FACET_SEARCH),
        ("GET", "/products", b"q=tea&%66acets=category", WorkKind.FACET_SEARCH),
        ("GET", "/products/1", b"q=tea", WorkKind.READ),
        ("GET", "/exports/products.csv", b"", WorkKind.LONG),
        ("POST", "/imports", b"", WorkKind.LONG),
        ("PUT", "/imports", b"", WorkKind.WRITE),
        ("POST", "/products", b"q=tea", WorkKind.WRITE),
        ("BREW", "/products", b"", WorkKind.WRITE),
    ],
)
def test_kind_of_request(method: str, path: str, query: bytes, kind: WorkKind) -> None:
    assert KINDS.kind_of({"method": method, "path": path, "query_string": query}) is kind


def test_limits_follow_the_pool() -> None:
    default = AdmissionLimits.for_pool(20, None, 16)
    small = AdmissionLimits.for_pool(1, 1, None)

    assert (default.requests, default.reads, default.searches) == (20, 15, 5)
    assert (small.requests, small.reads, small.searches) == (1, 1, 1)
    assert (default.facet_searches, small.facet_searches) == (2, 1)


async def test_slow_queue_refuses_at_once_until_its_first_request_is_served() -> None:
    clock = Clock()
    bulkhead = Bulkhead("test", 1, RejectionLog(), 80, max_wait_seconds=60, clock=clock)
    await bulkhead.enter()
    first = asyncio.create_task(bulkhead.enter())
    await until(lambda: bulkhead.waiting == 1)
    clock.now += 29
    second = asyncio.create_task(bulkhead.enter())
    await until(lambda: bulkhead.waiting == 2)
    clock.now += 2

    with pytest.raises(Overloaded):
        await bulkhead.enter()
    bulkhead.leave()
    await first
    bulkhead.refuse_if_full()
    third = asyncio.create_task(bulkhead.enter())
    await until(lambda: bulkhead.waiting == 2)

    for waiting in (second, third):
        bulkhead.leave()
        await waiting
    assert (bulkhead.in_use, bulkhead.waiting) == (1, 0)


async def test_waits_of_a_request_share_one_budget() -> None:
    bulkhead = Bulkhead("test", 1, RejectionLog(), max_waiting=1, max_wait_seconds=60)
    await bulkhead.enter()
    token = WAIT_BUDGET.set(WaitBudget(0.01))
    try:
        with pytest.raises(TimeoutError):
            await wait_within_budget(asyncio.Event().wait(), 60)
        with pytest.raises(Overloaded):  # the budget is used up
            await bulkhead.enter()
    finally:
        WAIT_BUDGET.reset(token)

    assert bulkhead.waiting == 0


def test_rejections_are_logged_at_intervals() -> None:
    clock = Clock()
    log = RejectionLog(clock)

    with capture_logs() as lines:
        for _ in range(50):
            log.add("requests")
        log.add("reads")
        clock.now += 10
        log.add("requests")

    assert [(line["reason"], line["rejected"]) for line in lines] == [
        ("requests", 1), ("reads", 1), ("requests", 50),
    ]  # fmt: skip
