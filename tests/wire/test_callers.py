"""Who may call what: every cell of the table, in process and over the wire, refused alike."""

from typing import Any

import httpx2
import pytest

from markethall.shared.errors import Forbidden
from markethall.shared.guard import Errands, Guard, guarded
from markethall.shared.service_tokens import ServiceSigner
from markethall.shared.tokens import generate_key
from markethall.shared.wire import Wire
from markethall.topology import CALLERS, Context
from tests.remote import ALLOWED, PATIENT, now, serving
from tests.wire.contracts import CONTRACTS, METHODS, StandIn
from tests.wire.greeter import CALL, refusal_of

CELLS = [(caller, *cell) for caller in Context for cell in METHODS]
SIGNER = ServiceSigner(generate_key(), now)


def in_process(caller: Context, target: Context, provider: Any) -> Any:
    """As any context would have it, were it wired to that neighbour."""
    return guarded(provider, Guard(caller, target, ALLOWED, Errands(), now, 5))


def over_the_wire(caller: Context, target: Context, provider: Any) -> Any:
    """Without the caller's own guard, as a caller would have it who was broken into."""
    contract = CONTRACTS[target]
    front = serving(target, contract.router, provider, SIGNER, callers=tuple(Context))
    transport = httpx2.ASGITransport(front, raise_app_exceptions=False)
    http = httpx2.AsyncClient(transport=transport, base_url="http://neighbour")
    return contract.remote(Wire(caller, target, http, SIGNER, now, PATIENT))


WAYS = (in_process, over_the_wire)


def may(caller: Context, target: Context, method: str) -> bool:
    return caller in CALLERS[target][method]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("caller", "target", "method"), [cell for cell in CELLS if may(*cell)])
async def test_who_is_in_the_table_is_answered(
    way: Any, caller: Context, target: Context, method: str
) -> None:
    provider = StandIn(CONTRACTS[target])
    asked, answered = CONTRACTS[target].samples[method]

    answer = await getattr(way(caller, target, provider), method)(CALL, asked)

    assert (answer, len(provider.asked)) == (answered, 1)


@pytest.mark.parametrize(("caller", "target", "method"), [cell for cell in CELLS if not may(*cell)])
async def test_who_is_not_is_refused_alike_and_reaches_nobody(
    caller: Context, target: Context, method: str
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


def test_both_answers_were_tried() -> None:
    allowed = sum(may(*cell) for cell in CELLS)

    assert (allowed, len(CELLS) - allowed) == (8, 24)
