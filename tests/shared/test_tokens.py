"""Test that only unexpired access tokens of the own issuer are accepted."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Unauthenticated
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.key_derivation import KeyPurpose
from markethall.shared.security.access_tokens import (
    CLOCK_SKEW_SECONDS,
    AccessTokenSigner,
    AccessTokenVerifier,
    generate_private_key,
    load_private_key,
)

ISSUER = "https://markethall.example"
AUDIENCE = "markethall"
TTL = timedelta(minutes=15)
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
PEM = generate_private_key()
USER = Actor(
    user_id=new_id(),
    name="user",
    roles=("customer",),
    scopes=frozenset({"orders", "profile"}),
    session_id=new_id(),
)


class FakeClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def signer(clock: FakeClock) -> AccessTokenSigner:
    return AccessTokenSigner(PEM, ISSUER, AUDIENCE, TTL, clock)


@pytest.fixture
def verifier(signer: AccessTokenSigner, clock: FakeClock) -> AccessTokenVerifier:
    return AccessTokenVerifier(signer.jwks, ISSUER, AUDIENCE, clock)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(START.timestamp())
    valid = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(USER.user_id),
        "iat": now,
        "exp": now + 900,
        "jti": "1",
        "scope": "orders",
        "roles": ["customer"],
    }
    return {name: value for name, value in (valid | changes).items() if value is not None}


def signed(
    payload: dict[str, Any] | None = None,
    key: Any = None,
    algorithm: str = "EdDSA",
    **header: Any,
) -> str:
    headers = {"typ": "at+jwt", "kid": kid(), **header}
    signing_key = load_private_key(PEM) if key is None else key
    return jwt.encode(payload or claims(), signing_key, algorithm=algorithm, headers=headers)


def kid() -> str:
    key: str = AccessTokenSigner(PEM, ISSUER, AUDIENCE, TTL, FakeClock()).jwks()["keys"][0]["kid"]
    return key


def unsigned(header: Any, payload: Any, signature: bytes = b"x" * 64) -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def rejection_reason(verifier: AccessTokenVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as raised:
        verifier.verify(token)
    assert len(token) < 20 or token not in repr(raised.value)
    return str(raised.value.details["reason"])


def test_order_token_gives_access_to_its_order_and_to_no_user(
    signer: AccessTokenSigner, verifier: AccessTokenVerifier
) -> None:
    order_id = new_id()

    actor = verifier.verify(signer.sign_order_token(order_id, TTL))

    assert actor == Actor(order_id=order_id, name="order", scopes=frozenset({"orders:one"}))
    assert (actor.is_authenticated, actor.audit_name) == (True, f"order:{order_id}")


def test_type_of_a_token_decides_how_its_claims_are_read(verifier: AccessTokenVerifier) -> None:
    """The header `typ` decides alone; claims that only the other type has are ignored."""
    as_order = verifier.verify(signed(claims(guest=True, sid=str(new_id())), typ="order+jwt"))
    as_user = verifier.verify(signed(claims(scope="orders:one", roles=[])))

    assert as_order == Actor(order_id=USER.user_id, name="order", scopes=frozenset({"orders:one"}))
    assert (as_user.user_id, as_user.order_id) == (USER.user_id, None)


def test_order_token_expires(
    signer: AccessTokenSigner, verifier: AccessTokenVerifier, clock: FakeClock
) -> None:
    token = signer.sign_order_token(new_id(), timedelta(minutes=1))
    verifier.verify(token)
    clock.now += timedelta(minutes=1)

    assert rejection_reason(verifier, token) == "expired"


def test_signed_user_is_verified(signer: AccessTokenSigner, verifier: AccessTokenVerifier) -> None:
    token = signer.sign(USER)

    assert verifier.verify(token) == USER
    assert verifier.verify(token) == USER


def test_token_follows_rfc_9068(signer: AccessTokenSigner) -> None:
    token = signer.sign(USER)

    header = jwt.get_unverified_header(token)
    body = jwt.decode(token, options={"verify_signature": False})
    assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": kid()}
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= body.keys()
    assert body["exp"] - body["iat"] == 900
    assert body["scope"] == "orders profile"


def test_tokens_are_unique(signer: AccessTokenSigner) -> None:
    assert signer.sign(USER) != signer.sign(USER)


def test_cached_token_expires(
    signer: AccessTokenSigner, verifier: AccessTokenVerifier, clock: FakeClock
) -> None:
    token, unused = signer.sign(USER), signer.sign(USER)
    verifier.verify(token)
    clock.now += TTL - timedelta(seconds=1)
    verifier.verify(token)
    clock.now += timedelta(seconds=1)

    assert rejection_reason(verifier, token) == "expired"
    assert rejection_reason(verifier, token) == "expired"
    assert rejection_reason(verifier, unused) == "expired"


def test_withdrawn_key_invalidates_tokens(signer: AccessTokenSigner, clock: FakeClock) -> None:
    published: list[Mapping[str, Any]] = [signer.jwks()]
    verifier = AccessTokenVerifier(lambda: published[0], ISSUER, AUDIENCE, clock)
    token = signer.sign(USER)
    verifier.verify(token)

    published[0] = AccessTokenSigner(generate_private_key(), ISSUER, AUDIENCE, TTL, clock).jwks()

    assert rejection_reason(verifier, token) == "invalid"


def test_equal_key_set_keeps_cache(signer: AccessTokenSigner, clock: FakeClock) -> None:
    verifier = AccessTokenVerifier(
        lambda: json.loads(json.dumps(signer.jwks())), ISSUER, AUDIENCE, clock
    )
    token = signer.sign(USER)

    assert verifier.verify(token) is verifier.verify(token)


@pytest.mark.parametrize(
    "key_set",
    [
        {},
        {"keys": [{}]},
        {"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}]},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "short"}]},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": 7}]},
        {"keys": ["text"]},
    ],
)
def test_broken_key_set_rejects_all(
    key_set: Mapping[str, Any], signer: AccessTokenSigner, clock: FakeClock
) -> None:
    verifier = AccessTokenVerifier(lambda: key_set, ISSUER, AUDIENCE, clock)

    assert rejection_reason(verifier, signer.sign(USER)) == "invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "another application"},
        {"aud": [AUDIENCE]},
        {"aud": None},
        {"sub": "ada"},
        {"sub": None},
        {"sub": 7},
        {"jti": None},
        {"iat": None},
        {"iat": "soon"},
        {"iat": int(START.timestamp()) + CLOCK_SKEW_SECONDS + 1},
        {"nbf": int(START.timestamp()) + CLOCK_SKEW_SECONDS + 1},
        {"nbf": "soon"},
        {"nbf": float("nan")},
        {"nbf": float("inf")},
        {"exp": None},
        {"exp": "never"},
        {"exp": [1]},
        {"exp": float("inf")},
        {"scope": 7},
        {"roles": 7},
        {"roles": [7]},
        {"sid": "no id"},
    ],
    ids=str,
)
def test_invalid_claims_are_rejected(
    verifier: AccessTokenVerifier, changes: dict[str, Any]
) -> None:
    token = signed(claims(**changes))

    assert rejection_reason(verifier, token) == "invalid"


def test_clock_skew_is_accepted(verifier: AccessTokenVerifier) -> None:
    latest = int(START.timestamp()) + CLOCK_SKEW_SECONDS

    assert verifier.verify(signed(claims(iat=latest, nbf=latest)))


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": "at+JWT"},
        {"typ": None},
        {"kid": "unknown"},
        {"jku": "https://elsewhere.example/keys"},
        {"x5u": "https://elsewhere.example/keys"},
        {"crit": ["b64"], "b64": True},
    ],
    ids=str,
)
def test_invalid_headers_are_rejected(
    verifier: AccessTokenVerifier, header: dict[str, Any]
) -> None:
    assert rejection_reason(verifier, signed(**header)) == "invalid"


def test_token_with_embedded_key_is_rejected(verifier: AccessTokenVerifier) -> None:
    attacker_key = Ed25519PrivateKey.generate()
    x = base64.urlsafe_b64encode(attacker_key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    attacker_jwk = {"kty": "OKP", "crv": "Ed25519", "x": x}

    assert rejection_reason(verifier, signed(key=attacker_key, jwk=attacker_jwk)) == "invalid"
    assert rejection_reason(verifier, signed(key=attacker_key)) == "invalid"


def test_other_algorithms_are_rejected(
    verifier: AccessTokenVerifier, signer: AccessTokenSigner
) -> None:
    public = load_private_key(PEM).public_key()
    x = signer.jwks()["keys"][0]["x"]
    header = {"typ": "at+jwt", "kid": kid()}
    tokens = [
        unsigned({"alg": "none", **header}, claims(), b""),
        unsigned({"alg": "None", **header}, claims(), b""),
        unsigned({"alg": "EdDSA", **header}, claims(), b""),
        unsigned({"alg": ["EdDSA"], **header}, claims()),
        signed(key=public.public_bytes_raw(), algorithm="HS256"),
        signed(key=x.encode(), algorithm="HS256"),
        signed(key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
        signed(key=rsa.generate_private_key(65537, 2048), algorithm="RS256"),
    ]

    for token in tokens:
        assert rejection_reason(verifier, token) == "invalid"


def test_changed_claims_are_rejected(
    verifier: AccessTokenVerifier, signer: AccessTokenSigner
) -> None:
    header, _, signature = signer.sign(USER).split(".")
    admin_claims = unsigned({}, claims(scope="users:manage")).split(".")[1]

    assert rejection_reason(verifier, f"{header}.{admin_claims}.{signature}") == "invalid"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "e30.e30.e30",
        "x" * 5_000_000,
        "ünïcode.tökén.hére",
        "\ud800.\ud800.\ud800",
        "\x00.\x00.\x00",
        unsigned([], []),
        unsigned(None, None),
        unsigned("text", "text"),
        unsigned({"alg": "EdDSA", "typ": "at+jwt"}, {}),
        unsigned({"alg": "EdDSA", "typ": "at+jwt", "kid": None}, {}),
        unsigned({"alg": "EdDSA", "typ": "at+jwt", "kid": {}}, {}),
        unsigned({"alg": "EdDSA", "typ": "at+jwt", "kid": ["a"]}, {}),
        base64.urlsafe_b64encode(b'{"alg":' + b"[" * 2500).decode() + ".e30.e30",
        "e30." * 900,
    ],
    ids=lambda token: repr(token[:20]),
)
def test_malformed_token_is_rejected(verifier: AccessTokenVerifier, token: str) -> None:
    assert rejection_reason(verifier, token) == "invalid"


@given(token=st.text(max_size=200) | st.from_regex(r"[\w-]{0,40}(\.[\w-]{0,40}){0,4}"))
def test_any_text_is_rejected_safely(token: str) -> None:
    signer = AccessTokenSigner(PEM, ISSUER, AUDIENCE, TTL, FakeClock())
    verifier = AccessTokenVerifier(signer.jwks, ISSUER, AUDIENCE, FakeClock())

    assert rejection_reason(verifier, token + "!") == "invalid"


def test_token_cache_is_bounded(signer: AccessTokenSigner, clock: FakeClock) -> None:
    verifier = AccessTokenVerifier(signer.jwks, ISSUER, AUDIENCE, clock, max_cached=3)
    tokens = [signer.sign(USER) for _ in range(5)]
    first = verifier.verify(tokens[0])

    for token in tokens[1:3]:
        verifier.verify(token)
        assert verifier.verify(tokens[0]) is first  # used recently, so not evicted
    for token in tokens[3:]:
        verifier.verify(token)

    assert len(verifier._cache) == 3


# Keys


def test_kid_is_thumbprint() -> None:
    """Test the example of RFC 8037, appendix A.3."""
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = Ed25519PrivateKey.from_private_bytes(seed)

    (jwk,) = AccessTokenSigner(key, ISSUER, AUDIENCE, TTL, FakeClock()).jwks()["keys"]

    assert jwk["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert jwk["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert "d" not in jwk


def test_key_round_trips() -> None:
    key = load_private_key("\n" + PEM + "\n")

    assert key.private_bytes_raw() == load_private_key(PEM).private_bytes_raw()


def test_key_rotation_overlaps() -> None:
    old, new = generate_private_key(), generate_private_key()
    clock = FakeClock()
    before, both, after = (
        AccessTokenSigner(text, ISSUER, AUDIENCE, timedelta(minutes=15), clock)
        for text in (old + new, new + old, new)
    )
    token_of_old, token_of_new = before.sign(USER), both.sign(USER)

    for signer in (before, both):
        verifier = AccessTokenVerifier(signer.jwks, ISSUER, AUDIENCE, clock)
        assert verifier.verify(token_of_old) == verifier.verify(token_of_new) == USER
    new_verifier = AccessTokenVerifier(after.jwks, ISSUER, AUDIENCE, clock)
    assert new_verifier.verify(token_of_new) == USER
    with pytest.raises(Unauthenticated):
        new_verifier.verify(token_of_old)


def pem(key: Any, encryption: Any = None) -> str:
    encoded: bytes = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()
    )
    return encoded.decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        PEM[:60],
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(load_private_key(PEM), BestAvailableEncryption(b"secret")),
        load_private_key(PEM)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        "é",
    ],
    ids=["empty", "text", "cut", "hollow", "curve", "encrypted", "public", "unicode"],
)
def test_invalid_key_is_reported_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is (not )?a private key[^\n]*$") as error:
        load_private_key(text)

    assert error.value.__cause__ is None


def test_digest_depends_on_key_purpose_and_text(signer: AccessTokenSigner) -> None:
    other = AccessTokenSigner(generate_private_key(), ISSUER, AUDIENCE, TTL, FakeClock())

    login, registration = KeyPurpose.LOGIN_FAILURE, KeyPurpose.REGISTRATION
    digests = {
        signer.digest(login, "secret"),
        signer.digest(login, "s"),
        signer.digest(registration, "s"),
        other.digest(registration, "s"),
    }

    assert signer.digest(login, "secret") in digests
    assert len(digests) == 4
