"""Generates access tokens that the server must reject."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)


@dataclass(frozen=True)
class TokenForger:
    """A valid token and the private key that signed it."""

    valid: str
    pem: str

    def forge(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the token of each forgery; each token has one defect."""
        yield from self._garbage()
        yield from self._other_algorithms()
        for name, changes in self._wrong_claims().items():
            yield name, self.sign({**self.claims, **changes}).encode()
        for name in ("iss", "aud", "exp", "iat", "sub", "jti"):
            yield f"no {name}", self.sign(_without(self.claims, name)).encode()
        for name, changes in self._wrong_headers().items():
            yield name, self.sign(self.claims, {**self.header, **changes}).encode()

    @property
    def header(self) -> dict[str, Any]:
        return jwt.get_unverified_header(self.valid)

    @property
    def claims(self) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(self.valid, options={"verify_signature": False})
        return claims

    def sign(self, claims: Any, header: dict[str, Any] | None = None) -> str:
        """Return a token with any claims and header, signed with the key of the server."""
        key = load_pem_private_key(self.pem.encode(), None)
        assert isinstance(key, Ed25519PrivateKey)
        head, body = _encode_part(header or self.header), _encode_part(claims)
        return f"{head}.{body}.{_base64(key.sign(f'{head}.{body}'.encode()))}"

    def _garbage(self) -> Iterator[tuple[str, bytes]]:
        valid = self.valid.encode()
        head, body, signature = valid.split(b".")
        yield from {
            "empty": b"",
            "spaces": b"   ",
            "a word": b"garbage",
            "dots": b"..",
            "many dots": b"." * 3000,
            "no signature": head + b"." + body + b".",
            "two parts": head + b"." + body,
            "cut off": valid[:-3],
            "one bit": head + b"." + body + b"." + bytes([signature[0] ^ 1]) + signature[1:],
            "with a tail": valid + b".x",
            "twice": valid + b" " + valid,
            "100 kB": b"a" * 100_000,
            "4 kB": b"a" * 4_097,
            "unicode": "tökén😀".encode(),
            "latin-1": b"\xff\xfe\xfd",
            "api key": b"mh_0123456789abcdef",
            "nested header": _base64(b"[" * 3000).encode() + b"." + body + b"." + signature,
            "header is a list": _encode_part([1]).encode() + b"." + body + b"." + signature,
            "header is null": _encode_part(None).encode() + b"." + body + b"." + signature,
            "header is not UTF-8": _base64(b"\xff{}").encode() + b"." + body + b"." + signature,
        }.items()

    def _other_algorithms(self) -> Iterator[tuple[str, bytes]]:
        key = load_pem_private_key(self.pem.encode(), None)
        assert isinstance(key, Ed25519PrivateKey)
        public = key.public_key()
        raw = public.public_bytes_raw()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for alg in ("none", "None", "NONE", ""):
            head = _encode_part({**self.header, "alg": alg})
            yield f"alg {alg!r}", f"{head}.{_encode_part(self.claims)}.".encode()
        for name, secret in {"raw": raw, "pem": pem, "empty": b""}.items():
            yield f"HS256 by the {name} public key", self._hmac(secret)
        header = {name: self.header[name] for name in ("typ", "kid")}
        token = jwt.encode(self.claims, ec_key(SECP256R1()), "ES256", headers=header)
        yield "ES256 by another key", token.encode()
        other = jwt.encode(self.claims, Ed25519PrivateKey.generate(), "EdDSA", headers=header)
        yield "EdDSA by another key", other.encode()

    def _hmac(self, secret: bytes) -> bytes:
        """Sign with HMAC without PyJWT, because PyJWT refuses a public key as the secret."""
        import hmac

        text = f"{_encode_part({**self.header, 'alg': 'HS256'})}.{_encode_part(self.claims)}"
        return f"{text}.{_base64(hmac.digest(secret, text.encode(), 'sha256'))}".encode()

    def _wrong_claims(self) -> dict[str, dict[str, Any]]:
        now = int(time.time())
        return {
            "another issuer": {"iss": "https://evil.example"},
            "issuer list": {"iss": [self.claims["iss"]]},
            "another audience": {"aud": "elsewhere"},
            "audience list": {"aud": ["markethall", "elsewhere"]},
            "expired": {"exp": now - 1},
            "expired long ago": {"exp": 0},
            "negative exp": {"exp": -(10**30)},
            "exp of text": {"exp": "tomorrow"},
            "exp null": {"exp": None},
            "exp list": {"exp": [now + 900]},
            "from the future": {"iat": now + 3600},
            "iat of text": {"iat": "now"},
            "iat huge": {"iat": 10**400},
            "sub is no id": {"sub": "admin"},
            "sub is a number": {"sub": 1},
            "sub null": {"sub": None},
            "sub list": {"sub": [self.claims["sub"]]},
            "scope number": {"scope": 5},
            "scope list": {"scope": ["users:manage"]},
            "roles number": {"roles": 5},
            "roles of numbers": {"roles": [1, None]},
            "sid is no id": {"sid": "x"},
        }

    def _wrong_headers(self) -> dict[str, dict[str, Any]]:
        return {
            "typ JWT": {"typ": "JWT"},
            "typ of a refresh token": {"typ": "rt+jwt"},
            "typ null": {"typ": None},
            "typ number": {"typ": 1},
            "unknown kid": {"kid": "unknown"},
            "kid is a path": {"kid": "../../../../dev/null"},
            "kid is SQL": {"kid": "' UNION SELECT 'x"},
            "kid list": {"kid": ["x"]},
            "kid null": {"kid": None},
            "its own key": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
            "a key elsewhere": {"jku": "http://evil.example/jwks.json"},
            "critical": {"crit": ["b64"], "b64": False},
        }


def _without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {claim: value for claim, value in claims.items() if claim != name}


def _encode_part(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
