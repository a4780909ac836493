"""Test that a service token is valid for one method and one minute, if its key is known."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Unauthenticated, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.jwks import LocalJwks
from markethall.shared.security.service_tokens import (
    MAX_TOKEN_LENGTH,
    ServiceSigner,
    ServiceVerifier,
)
from tests.rpc.forgeries import Forger

START: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
PEM: Final = generate_private_key()
USER: Final = Actor(
    user_id=new_id(),
    name="user",
    roles=("customer", "staff"),
    scopes=frozenset({"orders", "profile"}),
    session_id=new_id(),
)


class FakeClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class UnavailableJwks:
    """The key set of a caller that does not respond."""

    def get_key_set(self) -> dict[str, Any]:
        return {"keys": []}

    def has_key(self, kid: str) -> bool:
        return False

    async def refresh_for(self, kid: str) -> None:
        raise Unavailable(dependency="orders")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def signer(clock: FakeClock) -> ServiceSigner:
    return ServiceSigner(PEM, clock)


@pytest.fixture
def verifier(signer: ServiceSigner, clock: FakeClock) -> ServiceVerifier:
    return ServiceVerifier({"orders": LocalJwks(signer.jwks)}, {"users", "payments"}, clock)


@pytest.fixture
def token_forger(signer: ServiceSigner) -> Forger:
    return Forger(
        signer.sign("orders", "users", "get_active_customer", USER), PEM, START.timestamp()
    )


async def rejection_reason(verifier: ServiceVerifier, token: str) -> str:
    """Return the reason with which the verifier rejects the token."""
    with pytest.raises(Unauthenticated) as raised:
        await verifier.verify(token)
    assert set(raised.value.details) == {"reason"}
    return str(raised.value.details["reason"])


@pytest.mark.parametrize("actor", [USER, Actor(), Actor(name="system:orders.on_order_cancelled")])
async def test_token_carries_caller_method_and_actor(
    signer: ServiceSigner, verifier: ServiceVerifier, actor: Actor
) -> None:
    identity = await verifier.verify(signer.sign("orders", "users", "get_active_customer", actor))

    assert (identity.caller, identity.target, identity.scope) == (
        "orders",
        "users",
        "users.get_active_customer",
    )
    assert identity.actor == actor


async def test_token_lasts_one_minute(
    signer: ServiceSigner, verifier: ServiceVerifier, clock: FakeClock
) -> None:
    token = signer.sign("orders", "users", "get_active_customer", USER)
    claims = jwt.decode(token, options={"verify_signature": False})

    clock.forward(59)
    await verifier.verify(token)
    clock.forward(1)

    assert claims["exp"] - claims["iat"] == 60
    assert await rejection_reason(verifier, token) == "expired"


@pytest.mark.parametrize(("ahead", "is_valid"), [(0, True), (60, True), (61, False)])
async def test_clock_skew_of_one_minute_is_accepted(
    verifier: ServiceVerifier, token_forger: Forger, ahead: int, is_valid: bool
) -> None:
    now = int(START.timestamp())
    token = token_forger.signed(
        claims={"iat": now + ahead, "nbf": now + ahead, "exp": now + ahead + 60}
    )

    if is_valid:
        await verifier.verify(token)
    else:
        assert await rejection_reason(verifier, token) == "invalid"


async def test_expired_token_is_rejected_on_first_use(
    signer: ServiceSigner, verifier: ServiceVerifier, clock: FakeClock
) -> None:
    token = signer.sign("orders", "users", "get_active_customer", USER)
    clock.forward(61)

    assert await rejection_reason(verifier, token) == "expired"


async def test_token_is_reused_for_half_its_lifetime(
    signer: ServiceSigner, clock: FakeClock
) -> None:
    def sign(method: str = "get_active_customer", actor: Actor = USER) -> str:
        return signer.sign("orders", "users", method, actor)

    first = sign()
    clock.forward(30)
    again = sign()
    clock.forward(1)

    assert again == first
    assert sign() != first
    assert len({sign(), sign("other"), sign(actor=Actor())}) == 3


async def test_token_cache_is_bounded(
    signer: ServiceSigner, verifier: ServiceVerifier, clock: FakeClock
) -> None:
    for _ in range(2100):
        actor = Actor(user_id=new_id())
        await verifier.verify(signer.sign("orders", "users", "get_active_customer", actor))

    assert len(signer._cache) == len(verifier._cache) == 2048


def test_jwks_contains_public_key_only(signer: ServiceSigner) -> None:
    key = load_pem_private_key(PEM.encode(), None)
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (published,) = signer.jwks()["keys"]

    assert set(published) == {"kty", "crv", "use", "alg", "kid", "x"}
    assert base64.urlsafe_b64decode(published["x"] + "=") == raw


FORGERIES: Final = tuple(
    Forger(
        ServiceSigner(PEM, FakeClock()).sign("orders", "users", "get_active_customer", USER), PEM, 0
    ).all()
)


@pytest.mark.parametrize("name", FORGERIES)
async def test_forged_tokens_are_rejected(
    verifier: ServiceVerifier, token_forger: Forger, name: str
) -> None:
    assert await rejection_reason(verifier, token_forger.all()[name]) in {"invalid", "expired"}


async def test_forgery_helper_can_create_valid_token(
    verifier: ServiceVerifier, token_forger: Forger
) -> None:
    """The unchanged token is valid, so a forgery is rejected for its change only."""
    identity = await verifier.verify(token_forger.signed())

    assert identity.actor == USER


async def test_unknown_key_is_unavailable_while_issuer_is_down(
    signer: ServiceSigner, clock: FakeClock
) -> None:
    verifier = ServiceVerifier({"orders": UnavailableJwks()}, {"users"}, clock)

    with pytest.raises(Unavailable):
        await verifier.verify(signer.sign("orders", "users", "get_active_customer", USER))


async def test_caller_key_is_bound_to_caller(signer: ServiceSigner, clock: FakeClock) -> None:
    """The context payments cannot sign as orders."""
    other = ServiceSigner(generate_private_key(), clock)
    keys = {"orders": LocalJwks(signer.jwks), "payments": LocalJwks(other.jwks)}
    verifier = ServiceVerifier(keys, {"users"}, clock)

    identity = await verifier.verify(other.sign("payments", "users", "get_active_customer", USER))

    assert identity.caller == "payments"
    assert (
        await rejection_reason(verifier, other.sign("orders", "users", "get_active_customer", USER))
        == "invalid"
    )


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.hex())))
async def test_random_tokens_are_rejected(token: str) -> None:
    clock = FakeClock()
    signer = ServiceSigner(PEM, clock)
    verifier = ServiceVerifier({"orders": LocalJwks(signer.jwks)}, {"users"}, clock)

    assert await rejection_reason(verifier, token) == "invalid"


# excludes the valid values, because hypothesis also tries strings from the source code
texts = st.text().filter(
    lambda text: text not in {"orders", "markethall:orders", "markethall:users"}
)


@given(st.recursive(st.none() | st.booleans() | st.floats() | texts, st.lists, max_leaves=5))
async def test_any_signed_claims_are_handled(value: Any) -> None:
    clock = FakeClock()
    signer = ServiceSigner(PEM, clock)
    token_forger = Forger(
        signer.sign("orders", "users", "get_active_customer", USER), PEM, START.timestamp()
    )
    verifier = ServiceVerifier({"orders": LocalJwks(signer.jwks)}, {"users"}, clock)

    for claim in ("iss", "sub", "aud", "exp", "iat", "actor"):
        assert await rejection_reason(verifier, token_forger.signed(claims={claim: value})) in {
            "invalid",
            "expired",
        }


def test_length_limit_exceeds_issued_tokens(signer: ServiceSigner) -> None:
    largest = USER.model_copy(
        update={"roles": ("staff:catalogue",) * 20, "scopes": frozenset(map(str, range(100)))}
    )

    assert len(signer.sign("orders", "inventory", "reserve", largest)) < MAX_TOKEN_LENGTH
    assert json.loads(json.dumps(largest.model_dump(mode="json")))
