"""Forged service tokens, each with one defect."""

import base64
import hmac
import json
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "scope", "actor")


@dataclass(frozen=True)
class Forger:
    """Makes invalid tokens from a valid token and its private key."""

    token: str
    pem: str
    now: float

    def all(self) -> dict[str, str]:
        """Map the name of each defect to a token with this defect."""
        return {
            **self._garbage(),
            **self._wrong_keys(),
            **{name: self.signed(claims=change) for name, change in self._claims().items()},
            **{f"no {name}": self.signed(without=name) for name in _REQUIRED},
            **{name: self.signed(header=change) for name, change in self._headers().items()},
            "no kid": self._sign(_without(self.header, "kid"), self.claims),
            "no typ": self._sign(_without(self.header, "typ"), self.claims),
        }

    @property
    def header(self) -> dict[str, Any]:
        return jwt.get_unverified_header(self.token)

    @property
    def claims(self) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(self.token, options={"verify_signature": False})
        return claims

    def signed(
        self,
        *,
        claims: dict[str, Any] | None = None,
        header: dict[str, Any] | None = None,
        without: str = "",
    ) -> str:
        """Return a token with changed claims or header, and a valid signature.

        `without` names a claim that is left out.
        """
        changed = _without({**self.claims, **(claims or {})}, without)
        return self._sign({**self.header, **(header or {})}, changed)

    @property
    def _key(self) -> Ed25519PrivateKey:
        key = load_pem_private_key(self.pem.encode(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key

    def _sign(self, header: Any, claims: Any) -> str:
        text = f"{_part(header)}.{_part(claims)}"
        return f"{text}.{_base64(self._key.sign(text.encode()))}"

    def _garbage(self) -> dict[str, str]:
        head, body, signature = self.token.split(".")
        elevated = {**self.claims, "actor": {"name": "user", "scopes": ["users:manage"]}}
        other_scope = {**self.claims, "scope": "payments.refund"}
        return {
            "empty": "",
            "a word": "garbage",
            "dots": "..",
            "many dots": "." * 3000,
            "no signature": f"{head}.{body}.",
            "two parts": f"{head}.{body}",
            "cut off": self.token[:-3],
            "with a tail": self.token + ".x",
            "huge": self.token + "A" * 8192,
            "actor tampered": f"{head}.{_part(elevated)}.{signature}",
            "scope tampered": f"{head}.{_part(other_scope)}.{signature}",
            "claims are a list": self._sign(self.header, [1]),
            "claims are null": self._sign(self.header, None),
            "header is a list": f"{_part([1])}.{body}.{signature}",
            "header is null": f"{_part(None)}.{body}.{signature}",
            "header without end": f"{_base64(b'[' * 3000)}.{body}.{signature}",
            "claims without end": f"{head}.{_base64(b'[' * 3000)}.{signature}",
            "header is not UTF-8": ".".join((_base64(b"\xff{}"), body, signature)),
        }

    def _wrong_keys(self) -> dict[str, str]:
        public = self._key.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        names = {name: self.header[name] for name in ("typ", "kid")}
        foreign = Ed25519PrivateKey.generate()
        return {
            "alg none": f"{_part({**self.header, 'alg': 'none'})}.{_part(self.claims)}.",
            "alg None": f"{_part({**self.header, 'alg': 'None'})}.{_part(self.claims)}.",
            "HS256 by the public key": self._hmac(pem),
            "HS256 by its bytes": self._hmac(public.public_bytes_raw()),
            "HS256 by nothing": self._hmac(b""),
            "ES256": jwt.encode(self.claims, ec_key(SECP256R1()), "ES256", headers=names),
            "a foreign key": jwt.encode(self.claims, foreign, "EdDSA", headers=names),
        }

    def _hmac(self, secret: bytes) -> str:
        """Sign with HMAC. The code does not use PyJWT, which rejects a public key as the secret."""
        text = f"{_part({**self.header, 'alg': 'HS256'})}.{_part(self.claims)}"
        return f"{text}.{_base64(hmac.digest(secret, text.encode(), 'sha256'))}"

    def _claims(self) -> dict[str, dict[str, Any]]:
        now = int(self.now)
        return {
            "another audience": {"aud": "markethall:nowhere"},
            "audience of access tokens": {"aud": "markethall"},
            "an audience list": {"aud": [self.claims["aud"], "markethall:nowhere"]},
            "another issuer": {"iss": "markethall:unknown"},
            "an issuer list": {"iss": [self.claims["iss"]]},
            "sub of an unknown context": {"sub": "warehouse", "iss": "markethall:warehouse"},
            "sub is the target": {"sub": "users", "iss": "markethall:users"},
            "sub is a number": {"sub": 1},
            "sub is a list": {"sub": ["orders"]},
            "sub is null": {"sub": None},
            "expired": {"iat": now - 61, "exp": now - 1},
            "expired long ago": {"exp": 0},
            "expires never": {"exp": 10**12},
            "longer than a minute": {"exp": now + 61},
            "iat is NaN": {"iat": float("nan"), "exp": now + 3600},
            "exp is NaN": {"exp": float("nan")},
            "exp is infinite": {"exp": float("inf")},
            "exp is a text": {"exp": str(now + 60)},
            "exp is null": {"exp": None},
            "exp is true": {"exp": True},
            "from the future": {"iat": now + 3600, "exp": now + 3660},
            "not valid yet": {"nbf": now + 3600},
            "nbf is a text": {"nbf": "soon"},
            "iat is a text": {"iat": "now"},
            "iat is huge": {"iat": 10**400},
            "actor is a text": {"actor": "admin"},
            "actor is null": {"actor": None},
            "actor is a list": {"actor": [{}]},
            "actor with an invalid id": {"actor": {"user_id": "admin"}},
            "actor with an unknown field": {"actor": {"name": "user", "sudo": True}},
            "scopes of numbers": {"actor": {"scopes": [1]}},
        }

    def _headers(self) -> dict[str, dict[str, Any]]:
        key = _base64(self._key.public_key().public_bytes_raw())
        return {
            "typ of access tokens": {"typ": "at+jwt"},
            "typ JWT": {"typ": "JWT"},
            "typ null": {"typ": None},
            "typ is a number": {"typ": 1},
            "kid is unknown": {"kid": "unknown"},
            "kid is a path": {"kid": "../../dev/null"},
            "kid is a list": {"kid": [self.header["kid"]]},
            "kid is null": {"kid": None},
            "its own key": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": key}},
            "a key elsewhere": {"jku": "http://evil.example/keys.json"},
            "a certificate": {"x5u": "http://evil.example/cert.pem"},
            "critical": {"crit": ["b64"], "b64": False},
        }


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _part(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
