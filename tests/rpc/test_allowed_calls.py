"""Test that the allow-list has the same effect in process and over HTTP for each call."""

from typing import Any

import httpx2
import pytest

from markethall.contexts import context_names, topology
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard, InFlightCalls
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.service_tokens import ServiceSigner
from tests.rpc.contracts import CONTRACTS, METHODS, RecordingService
from tests.rpc.probe_contract import CTX, error_of
from tests.rpc_loopback import ALLOWED, LONG_TIMEOUTS, now, rpc_server

# (caller, target, method) for each caller and each contract method
CELLS = [(caller, *cell) for caller in context_names() for cell in METHODS]
SIGNER = ServiceSigner(generate_private_key(), now)


def in_process(caller: str, target: str, provider: Any) -> Any:
    """Return the contract with a call guard, as the container builds it for this caller."""
    guard = CallGuard(caller, target, ALLOWED, InFlightCalls(), now, 5)
    return CONTRACTS[target].guarded(provider, guard)


def over_http(caller: str, target: str, provider: Any) -> Any:
    """Return a client without a call guard, because a compromised caller could omit it."""
    contract = CONTRACTS[target]
    server = rpc_server(target, contract.router, provider, SIGNER, callers=tuple(context_names()))
    transport = httpx2.ASGITransport(server, raise_app_exceptions=False)
    http = httpx2.AsyncClient(transport=transport, base_url="http://provider")
    return contract.remote(RpcClient(caller, target, http, SIGNER, now, LONG_TIMEOUTS))


CLIENTS = (in_process, over_http)


def is_allowed(caller: str, target: str, method: str) -> bool:
    return caller in topology().allowed_calls[target][method]


@pytest.mark.parametrize("client_of", CLIENTS)
@pytest.mark.parametrize(
    ("caller", "target", "method"), [cell for cell in CELLS if is_allowed(*cell)]
)
async def test_allowed_caller_is_accepted(
    client_of: Any, caller: str, target: str, method: str
) -> None:
    provider = RecordingService(CONTRACTS[target])
    argument, result = CONTRACTS[target].samples[method]

    response = await getattr(client_of(caller, target, provider), method)(CTX, argument)

    assert (response, len(provider.calls)) == (result, 1)


@pytest.mark.parametrize(
    ("caller", "target", "method"), [cell for cell in CELLS if not is_allowed(*cell)]
)
async def test_disallowed_caller_is_rejected_without_call(
    caller: str, target: str, method: str
) -> None:
    provider = RecordingService(CONTRACTS[target])
    argument, _ = CONTRACTS[target].samples[method]

    local, remote = [
        await error_of(getattr(client_of(caller, target, provider), method)(CTX, argument))
        for client_of in CLIENTS
    ]

    assert type(local) is type(remote) is Forbidden
    assert local.details == {"scope": f"{target}.{method}", "caller": caller}
    assert (local.detail, local.details, local.status) == (
        remote.detail,
        remote.details,
        remote.status,
    )
    assert provider.calls == []


def test_both_outcomes_were_tested() -> None:
    allowed = sum(is_allowed(*cell) for cell in CELLS)

    assert (allowed, len(CELLS) - allowed) == (19, 57)
