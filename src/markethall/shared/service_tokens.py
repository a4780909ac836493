"""Service tokens: who of us is calling, what for, and on whose behalf.

A caller signs one for each method that it calls, with a key of its own; it is good for a minute.
In the same profile as the access tokens (RFC 8725), and of another type, so that neither passes
for the other. The actor travels inside, signed with the rest.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import jwt

from markethall.shared.call import Actor
from markethall.shared.clock import Clock
from markethall.shared.errors import Unauthenticated
from markethall.shared.ids import new_id
from markethall.shared.keyring import KeySource
from markethall.shared.tokens import (
    AHEAD,
    ALGORITHM,
    UNREADABLE,
    key_set_of,
    load_keys,
    public_keys,
)

T = TypeVar("T")

TYPE: Final = "svc+jwt"
LIFETIME: Final = 60
LONGEST: Final = 8192
# a token that is given out again has at least this long to go
_LEAST_LEFT: Final = 30
_MOST_KEPT: Final = 2048
_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "scope", "actor")
_OPTIONS: Final[Any] = {
    "require": list(_REQUIRED),
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "strict_aud": True,
}


def audience_of(target: str) -> str:
    return f"markethall:{target}"


@dataclass(frozen=True)
class ServiceIdentity:
    """What a good service token says: `caller` may do `scope` at `target`, for `actor`."""

    caller: str
    target: str
    scope: str
    actor: Actor
    expires: int


class ServiceSigner:
    """Signs for the contexts of this process. Holds the private key; nothing else does."""

    def __init__(self, pem: str, clock: Clock) -> None:
        """The first key signs, further ones are only published. Raises ValueError for a bad one."""
        keys = load_keys(pem)
        self._key = keys[0]
        self._clock = clock
        self._jwks = key_set_of(keys)
        self._headers = {"typ": TYPE, "kid": self._jwks["keys"][0]["kid"]}
        self._kept: OrderedDict[tuple[str, str, str, Actor], tuple[str, int]] = OrderedDict()

    def jwks(self) -> Mapping[str, Any]:
        """The public half, as a JSON Web Key Set (RFC 7517)."""
        return self._jwks

    def sign(self, caller: str, target: str, method: str, actor: Actor) -> str:
        """A token for this one method. The same one again while it has half its life to go."""
        now = int(self._clock().timestamp())
        wanted = (caller, target, method, actor)
        token, expires = self._kept.get(wanted, ("", 0))
        if expires - now < _LEAST_LEFT:
            token, expires = self._sign(*wanted, now), now + LIFETIME
            self._keep(wanted, token, expires)
        return token

    def _keep(self, wanted: tuple[str, str, str, Actor], token: str, expires: int) -> None:
        self._kept[wanted] = (token, expires)
        self._kept.move_to_end(wanted)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def _sign(self, caller: str, target: str, method: str, actor: Actor, now: int) -> str:
        claims = {
            "iss": audience_of(caller),
            "sub": caller,
            "aud": audience_of(target),
            "scope": f"{target}.{method}",
            "iat": now,
            "exp": now + LIFETIME,
            "jti": str(new_id()),
            "actor": actor.model_dump(mode="json", exclude_defaults=True),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=self._headers)


class ServiceVerifier:
    """Tells which service bears a token. `sources`: caller -> where its public keys come from."""

    def __init__(
        self, sources: Mapping[str, KeySource], served: Collection[str], clock: Clock
    ) -> None:
        self._sources = sources
        self._targets = {audience_of(context): context for context in served}
        self._clock = clock
        self._known: OrderedDict[str, ServiceIdentity] = OrderedDict()

    async def verify(self, token: str) -> ServiceIdentity:
        """Raises Unauthenticated; Unavailable when the caller's keys cannot be had."""
        identity = self._known.get(token)
        if identity is None:
            identity = await self._read(token)
            self._known[token] = identity
            if len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        if identity.expires <= self._clock().timestamp():
            self._known.pop(token, None)
            raise Unauthenticated("The service token has expired.", reason="expired")
        return identity

    async def _read(self, token: str) -> ServiceIdentity:
        if len(token) > LONGEST:
            raise Unauthenticated(reason="invalid")
        said = _good(lambda: _what_it_says(token))
        # the keys of whom it says that it comes from; whether that is true, they will show
        source = _good(lambda: self._sources[said.caller])
        if not source.knows(said.kid):
            await source.learn(said.kid)
        return _good(lambda: self._identity(token, said, source))

    def _identity(self, token: str, said: "_Said", source: KeySource) -> ServiceIdentity:
        claims = jwt.decode(
            token,
            public_keys(source.current())[said.kid],
            algorithms=[ALGORITHM],
            issuer=audience_of(said.caller),
            options=_OPTIONS | {"verify_aud": False},
        )
        issued, expires = _seconds(claims["iat"]), _seconds(claims["exp"])
        if issued > self._clock().timestamp() + AHEAD or expires - issued > LIFETIME:
            raise ValueError("from the future, or good for too long")
        return ServiceIdentity(
            caller=said.caller,
            target=self._targets[claims["aud"]],
            scope=str(claims["scope"]),
            actor=Actor.model_validate(claims["actor"], extra="forbid"),
            expires=expires,
        )


class _Said(NamedTuple):
    """What a token says, true or not: who made it, with which key."""

    caller: str
    kid: str


def _what_it_says(token: str) -> _Said:
    """Read once: the library looks at every letter each time. Raises what UNREADABLE names."""
    read = jwt.decode_complete(token, options={"verify_signature": False})
    header, claims = read["header"], read["payload"]
    if set(header) != {"alg", "typ", "kid"} or header["typ"] != TYPE:
        raise ValueError("not the header of a service token")
    return _Said(str(claims["sub"]), str(header["kid"]))


def _seconds(value: object) -> int:
    """NaN is neither later than anything nor too long: whole numbers only. Raises ValueError."""
    if type(value) is not int:
        raise ValueError("no time in whole seconds")
    return value


def _good(read: Callable[[], T]) -> T:
    """One answer for whatever is wrong: nobody learns which part they got right."""
    try:
        return read()
    except UNREADABLE:
        raise Unauthenticated(reason="invalid") from None
