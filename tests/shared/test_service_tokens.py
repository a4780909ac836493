"""Service tokens: for one method, for a minute, of a caller whose key is known; nothing else."""

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
ADA: Final = Actor(
    user_id=new_id(),
    name="user",
    roles=("customer", "staff"),
    scopes=frozenset({"orders", "profile"}),
    session_id=new_id(),
)


class Watch:
    """A clock that stands until it is put forward."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Away:
    """The keys of a caller who cannot be asked."""

    def get_key_set(self) -> dict[str, Any]:
        return {"keys": []}

    def has_key(self, kid: str) -> bool:
        return False

    async def refresh_for(self, kid: str) -> None:
        raise Unavailable(dependency="orders")


@pytest.fixture
def clock() -> Watch:
    return Watch()


@pytest.fixture
def signer(clock: Watch) -> ServiceSigner:
    return ServiceSigner(PEM, clock)


@pytest.fixture
def verifier(signer: ServiceSigner, clock: Watch) -> ServiceVerifier:
    return ServiceVerifier({"orders": LocalJwks(signer.jwks)}, {"users", "payments"}, clock)


@pytest.fixture
def token_forger(signer: ServiceSigner) -> Forger:
    return Forger(
        signer.sign("orders", "users", "get_active_customer", ADA), PEM, START.timestamp()
    )


async def reason(verifier: ServiceVerifier, token: str) -> str:
    """Why it is refused."""
    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(token)
    assert set(refusal.value.details) == {"reason"}
    return str(refusal.value.details["reason"])


@pytest.mark.parametrize("actor", [ADA, Actor(), Actor(name="system:orders.on_order_cancelled")])
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
    signer: ServiceSigner, verifier: ServiceVerifier, clock: Watch
) -> None:
    token = signer.sign("orders", "users", "get_active_customer", ADA)
    claims = jwt.decode(token, options={"verify_signature": False})

    clock.forward(59)
    await verifier.verify(token)
    clock.forward(1)

    assert claims["exp"] - claims["iat"] == 60
    assert await reason(verifier, token) == "expired"


@pytest.mark.parametrize(("ahead", "good"), [(0, True), (60, True), (61, False)])
async def test_clock_skew_of_one_minute_is_accepted(
    verifier: ServiceVerifier, token_forger: Forger, ahead: int, good: bool
) -> None:
    now = int(START.timestamp())
    token = token_forger.signed(claims={"iat": now + ahead, "exp": now + ahead + 60})

    if good:
        await verifier.verify(token)
    else:
        assert await reason(verifier, token) == "invalid"


async def test_expired_token_is_rejected_on_first_use(
    signer: ServiceSigner, verifier: ServiceVerifier, clock: Watch
) -> None:
    token = signer.sign("orders", "users", "get_active_customer", ADA)
    clock.forward(61)

    assert await reason(verifier, token) == "expired"


async def test_token_is_reused_for_half_its_lifetime(signer: ServiceSigner, clock: Watch) -> None:
    def sign(method: str = "get_active_customer", actor: Actor = ADA) -> str:
        return signer.sign("orders", "users", method, actor)

    first = sign()
    clock.forward(30)
    again = sign()
    clock.forward(1)

    assert again == first
    assert sign() != first
    assert len({sign(), sign("other"), sign(actor=Actor())}) == 3


async def test_token_cache_is_bounded(
    signer: ServiceSigner, verifier: ServiceVerifier, clock: Watch
) -> None:
    for _ in range(2100):
        actor = Actor(user_id=new_id())
        await verifier.verify(signer.sign("orders", "users", "get_active_customer", actor))

    assert len(signer._cache) == len(verifier._cache) == 2048


def test_the_published_half_is_public(signer: ServiceSigner) -> None:
    key = load_pem_private_key(PEM.encode(), None)
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (published,) = signer.jwks()["keys"]

    assert set(published) == {"kty", "crv", "use", "alg", "kid", "x"}
    assert base64.urlsafe_b64decode(published["x"] + "=") == raw


FORGERIES: Final = tuple(
    Forger(
        ServiceSigner(PEM, Watch()).sign("orders", "users", "get_active_customer", ADA), PEM, 0
    ).all()
)


@pytest.mark.parametrize("name", FORGERIES)
async def test_forged_tokens_are_rejected(
    verifier: ServiceVerifier, token_forger: Forger, name: str
) -> None:
    assert await reason(verifier, token_forger.all()[name]) in {"invalid", "expired"}


async def test_forgery_helper_can_create_valid_token(
    verifier: ServiceVerifier, token_forger: Forger
) -> None:
    """Else every forgery would be refused for the wrong reason."""
    identity = await verifier.verify(token_forger.signed())

    assert identity.actor == ADA


async def test_unknown_key_is_unavailable_while_publisher_is_down(
    signer: ServiceSigner, clock: Watch
) -> None:
    verifier = ServiceVerifier({"orders": Away()}, {"users"}, clock)

    with pytest.raises(Unavailable):
        await verifier.verify(signer.sign("orders", "users", "get_active_customer", ADA))


async def test_caller_key_is_bound_to_caller(signer: ServiceSigner, clock: Watch) -> None:
    """Each is asked for its own keys: payments cannot sign as orders."""
    other = ServiceSigner(generate_private_key(), clock)
    keys = {"orders": LocalJwks(signer.jwks), "payments": LocalJwks(other.jwks)}
    verifier = ServiceVerifier(keys, {"users"}, clock)

    good = await verifier.verify(other.sign("payments", "users", "get_active_customer", ADA))

    assert good.caller == "payments"
    assert (
        await reason(verifier, other.sign("orders", "users", "get_active_customer", ADA))
        == "invalid"
    )


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.hex())))
async def test_random_tokens_are_rejected(noise: str) -> None:
    clock = Watch()
    signer = ServiceSigner(PEM, clock)
    verifier = ServiceVerifier({"orders": LocalJwks(signer.jwks)}, {"users"}, clock)

    assert await reason(verifier, noise) == "invalid"


# hypothesis tries the words of our own sources too
words = st.text().filter(
    lambda text: text not in {"orders", "markethall:orders", "markethall:users"}
)


@given(st.recursive(st.none() | st.booleans() | st.floats() | words, st.lists, max_leaves=5))
async def test_any_signed_claims_are_handled(value: Any) -> None:
    clock = Watch()
    signer = ServiceSigner(PEM, clock)
    token_forger = Forger(
        signer.sign("orders", "users", "get_active_customer", ADA), PEM, START.timestamp()
    )
    verifier = ServiceVerifier({"orders": LocalJwks(signer.jwks)}, {"users"}, clock)

    for claim in ("iss", "sub", "aud", "exp", "iat", "actor"):
        assert await reason(verifier, token_forger.signed(claims={claim: value})) in {
            "invalid",
            "expired",
        }


def test_length_limit_exceeds_issued_tokens(signer: ServiceSigner) -> None:
    largest = ADA.model_copy(
        update={"roles": ("staff:catalogue",) * 20, "scopes": frozenset(map(str, range(100)))}
    )

    assert len(signer.sign("orders", "inventory", "reserve", largest)) < MAX_TOKEN_LENGTH
    assert json.loads(json.dumps(largest.model_dump(mode="json")))
