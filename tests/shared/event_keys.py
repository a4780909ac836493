"""Keys that sign the events of the tests. Equal seeds give equal keys in every process."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from markethall.shared.kernel.clock import utc_now
from markethall.shared.messaging.event_signature import EventSigner, EventVerifier
from markethall.shared.security.jwks import LocalJwks
from markethall.shared.security.service_tokens import ServiceSigner


def private_key(seed: int) -> str:
    """Return a private key as PEM text."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def service_signer(*seeds: int) -> ServiceSigner:
    return ServiceSigner("".join(private_key(seed) for seed in seeds), utc_now)


def event_signer(publisher: str = "probe", *seeds: int) -> EventSigner:
    return EventSigner(service_signer(*(seeds or (1,))), publisher)


def event_verifier(publisher: str = "probe", *seeds: int) -> EventVerifier:
    return EventVerifier(publisher, [LocalJwks(service_signer(*(seeds or (1,))).jwks)])
