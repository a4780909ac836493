"""Who may call what: every cell of the table, in process and over the wire, refused alike."""

from typing import Any

import httpx2
import pytest

from markethall.contexts import context_names, topology
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard, InFlightCalls, with_call_guard
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.service_tokens import ServiceSigner
from tests.rpc.contracts import CONTRACTS, METHODS, StandIn
from tests.rpc.probe_contract import CALL, refusal_of
from tests.rpc_loopback import ALLOWED, LONG_TIMEOUTS, now, rpc_server

CELLS = [(caller, *cell) for caller in context_names() for cell in METHODS]
SIGNER = ServiceSigner(generate_private_key(), now)


def in_process(caller: str, target: str, provider: Any) -> Any:
    """As any context would have it, were it wired to that neighbour."""
    return with_call_guard(provider, CallGuard(caller, target, ALLOWED, InFlightCalls(), now, 5))


def over_the_wire(caller: str, target: str, provider: Any) -> Any:
    """Without the caller's own guard, as a caller would have it who was broken into."""
    contract = CONTRACTS[target]
    front = rpc_server(target, contract.router, provider, SIGNER, callers=tuple(context_names()))
    transport = httpx2.ASGITransport(front, raise_app_exceptions=False)
    http = httpx2.AsyncClient(transport=transport, base_url="http://neighbour")
    return contract.remote(RpcClient(caller, target, http, SIGNER, now, LONG_TIMEOUTS))


WAYS = (in_process, over_the_wire)


def may(caller: str, target: str, method: str) -> bool:
    return caller in topology().allowed_calls[target][method]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("caller", "target", "method"), [cell for cell in CELLS if may(*cell)])
async def test_allowed_caller_is_accepted(way: Any, caller: str, target: str, method: str) -> None:
    provider = StandIn(CONTRACTS[target])
    asked, answered = CONTRACTS[target].samples[method]

    answer = await getattr(way(caller, target, provider), method)(CALL, asked)

    assert (answer, len(provider.asked)) == (answered, 1)


@pytest.mark.parametrize(("caller", "target", "method"), [cell for cell in CELLS if not may(*cell)])
async def test_disallowed_caller_is_rejected_without_call(
    caller: str, target: str, method: str
) -> None:
    provider = StandIn(CONTRACTS[target])
    asked, _ = CONTRACTS[target].samples[method]

    here, there = [
        await refusal_of(getattr(way(caller, target, provider), method)(CALL, asked))
        for way in WAYS
    ]

    assert type(here) is type(there) is Forbidden
    assert here.details == {"scope": f"{target}.{method}", "caller": caller}
    assert (here.detail, here.details, here.status) == (there.detail, there.details, there.status)
    assert provider.asked == []


def test_both_outcomes_were_tested() -> None:
    allowed = sum(may(*cell) for cell in CELLS)

    assert (allowed, len(CELLS) - allowed) == (10, 30)
