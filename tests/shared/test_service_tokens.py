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

from markethall.shared.call import Actor
from markethall.shared.errors import Unauthenticated, Unavailable
from markethall.shared.ids import new_id
from markethall.shared.keyring import OwnKeys
from markethall.shared.service_tokens import LONGEST, ServiceSigner, ServiceVerifier
from markethall.shared.tokens import generate_key
from tests.wire.forgeries import Forger

START: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
PEM: Final = generate_key()
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

    def current(self) -> dict[str, Any]:
        return {"keys": []}

    def knows(self, kid: str) -> bool:  # noqa: ARG002 - a KeySource
        return False

    async def learn(self, kid: str) -> None:  # noqa: ARG002 - a KeySource
        raise Unavailable(dependency="orders")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def signer(watch: Watch) -> ServiceSigner:
    return ServiceSigner(PEM, watch)


@pytest.fixture
def verifier(signer: ServiceSigner, watch: Watch) -> ServiceVerifier:
    return ServiceVerifier({"orders": OwnKeys(signer.jwks)}, {"users", "payments"}, watch)


@pytest.fixture
def forger(signer: ServiceSigner) -> Forger:
    return Forger(signer.sign("orders", "users", "active", ADA), PEM, START.timestamp())


async def reason(verifier: ServiceVerifier, token: str) -> str:
    """Why it is refused."""
    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(token)
    assert set(refusal.value.details) == {"reason"}
    return str(refusal.value.details["reason"])


@pytest.mark.parametrize("actor", [ADA, Actor(), Actor(name="system:orders.undo_order")])
async def test_a_token_says_who_calls_what_for_whom(
    signer: ServiceSigner, verifier: ServiceVerifier, actor: Actor
) -> None:
    identity = await verifier.verify(signer.sign("orders", "users", "active", actor))

    assert (identity.caller, identity.target, identity.scope) == ("orders", "users", "users.active")
    assert identity.actor == actor


async def test_a_token_is_good_for_a_minute(
    signer: ServiceSigner, verifier: ServiceVerifier, watch: Watch
) -> None:
    token = signer.sign("orders", "users", "active", ADA)
    claims = jwt.decode(token, options={"verify_signature": False})

    watch.forward(59)
    await verifier.verify(token)
    watch.forward(1)

    assert claims["exp"] - claims["iat"] == 60
    assert await reason(verifier, token) == "expired"


@pytest.mark.parametrize(("ahead", "good"), [(0, True), (60, True), (61, False)])
async def test_the_clock_of_a_caller_may_be_a_minute_ahead(
    verifier: ServiceVerifier, forger: Forger, ahead: int, good: bool
) -> None:
    now = int(START.timestamp())
    token = forger.signed(claims={"iat": now + ahead, "exp": now + ahead + 60})

    if good:
        await verifier.verify(token)
    else:
        assert await reason(verifier, token) == "invalid"


async def test_an_expired_token_is_refused_also_at_first_sight(
    signer: ServiceSigner, verifier: ServiceVerifier, watch: Watch
) -> None:
    token = signer.sign("orders", "users", "active", ADA)
    watch.forward(61)

    assert await reason(verifier, token) == "expired"


async def test_a_token_is_given_out_again_while_half_of_its_minute_is_left(
    signer: ServiceSigner, watch: Watch
) -> None:
    def sign(method: str = "active", actor: Actor = ADA) -> str:
        return signer.sign("orders", "users", method, actor)

    first = sign()
    watch.forward(30)
    again = sign()
    watch.forward(1)

    assert again == first
    assert sign() != first
    assert len({sign(), sign("other"), sign(actor=Actor())}) == 3


async def test_what_is_kept_is_bounded(
    signer: ServiceSigner, verifier: ServiceVerifier, watch: Watch
) -> None:
    for _ in range(2100):
        actor = Actor(user_id=new_id())
        await verifier.verify(signer.sign("orders", "users", "active", actor))

    assert len(signer._kept) == len(verifier._known) == 2048


def test_the_published_half_is_public(signer: ServiceSigner) -> None:
    key = load_pem_private_key(PEM.encode(), None)
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (published,) = signer.jwks()["keys"]

    assert set(published) == {"kty", "crv", "use", "alg", "kid", "x"}
    assert base64.urlsafe_b64decode(published["x"] + "=") == raw


FORGERIES: Final = tuple(
    Forger(ServiceSigner(PEM, Watch()).sign("orders", "users", "active", ADA), PEM, 0).all()
)


@pytest.mark.parametrize("name", FORGERIES)
async def test_no_forgery_is_accepted(verifier: ServiceVerifier, forger: Forger, name: str) -> None:
    assert await reason(verifier, forger.all()[name]) in {"invalid", "expired"}


async def test_the_forger_knows_how_to_make_a_good_one(
    verifier: ServiceVerifier, forger: Forger
) -> None:
    """Else every forgery would be refused for the wrong reason."""
    identity = await verifier.verify(forger.signed())

    assert identity.actor == ADA


async def test_a_key_that_is_unknown_while_its_owner_is_away_is_not_called_bad(
    signer: ServiceSigner, watch: Watch
) -> None:
    verifier = ServiceVerifier({"orders": Away()}, {"users"}, watch)

    with pytest.raises(Unavailable):
        await verifier.verify(signer.sign("orders", "users", "active", ADA))


async def test_the_key_of_one_caller_does_not_speak_for_another(
    signer: ServiceSigner, watch: Watch
) -> None:
    """Each is asked for its own keys: payments cannot sign as orders."""
    other = ServiceSigner(generate_key(), watch)
    keys = {"orders": OwnKeys(signer.jwks), "payments": OwnKeys(other.jwks)}
    verifier = ServiceVerifier(keys, {"users"}, watch)

    good = await verifier.verify(other.sign("payments", "users", "active", ADA))

    assert good.caller == "payments"
    assert await reason(verifier, other.sign("orders", "users", "active", ADA)) == "invalid"


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.hex())))
async def test_noise_is_refused_and_nothing_else(noise: str) -> None:
    watch = Watch()
    signer = ServiceSigner(PEM, watch)
    verifier = ServiceVerifier({"orders": OwnKeys(signer.jwks)}, {"users"}, watch)

    assert await reason(verifier, noise) == "invalid"


# hypothesis tries the words of our own sources too
words = st.text().filter(
    lambda text: text not in {"orders", "markethall:orders", "markethall:users"}
)


@given(st.recursive(st.none() | st.booleans() | st.floats() | words, st.lists, max_leaves=5))
async def test_a_signed_claim_of_any_shape_is_refused_or_read(value: Any) -> None:
    watch = Watch()
    signer = ServiceSigner(PEM, watch)
    forger = Forger(signer.sign("orders", "users", "active", ADA), PEM, START.timestamp())
    verifier = ServiceVerifier({"orders": OwnKeys(signer.jwks)}, {"users"}, watch)

    for claim in ("iss", "sub", "aud", "exp", "iat", "actor"):
        assert await reason(verifier, forger.signed(claims={claim: value})) in {
            "invalid",
            "expired",
        }


def test_too_long_is_longer_than_any_of_ours(signer: ServiceSigner) -> None:
    largest = ADA.model_copy(
        update={"roles": ("staff:catalogue",) * 20, "scopes": frozenset(map(str, range(100)))}
    )

    assert len(signer.sign("orders", "inventory", "reserve", largest)) < LONGEST
    assert json.loads(json.dumps(largest.model_dump(mode="json")))
