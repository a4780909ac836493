"""Test that a process accepts only events that their publisher or the process itself signed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from markethall.container import ApplicationContainer
from markethall.contexts import context_names
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.event_signature import EventSigner
from markethall.shared.security.access_tokens import generate_private_key

EVENT = b'{"type": "payments.payment_captured"}'


class Network:
    """A fake network in which each context responds to requests for its public keys."""

    def __init__(self) -> None:
        self.containers: dict[str, ApplicationContainer] = {}
        self.unreachable: set[str] = set()

    def process(self, folder: Path, *contexts: str, **settings: Any) -> ApplicationContainer:
        """Build the container of a process that has its own data directory and service key."""
        name = "-".join(contexts)
        read = read_settings(
            contexts=",".join(contexts),
            context_urls={c: f"http://{c}" for c in context_names() if c not in contexts},
            storage="memory",
            redis_url="redis://redis",
            data_dir=folder / name,
            **settings,
        )
        transport = httpx2.MockTransport(self._answer)
        container = ApplicationContainer(
            read, load_or_create_secrets(read), http_transport=transport
        )
        self.containers.update(dict.fromkeys(contexts, container))
        return container

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/internal/keys.json"
        if request.url.host in self.unreachable:
            raise httpx2.ConnectError("unreachable", request=request)
        container = self.containers[request.url.host]
        return httpx2.Response(200, json=container.process.service_signer().jwks())


def entry(signer: EventSigner) -> Mapping[bytes, bytes]:
    return {b"event": EVENT, b"signature": signer.sign(EVENT)}


async def defect(container: ApplicationContainer, signer: EventSigner) -> str | None:
    """Return the reason why the process refuses an event of payments, or None if it accepts it."""
    fields = entry(signer)
    verifier = container.process.event_keys().verifier_of("payments")
    await verifier.fetch_unknown_keys([fields])
    return verifier.find_defect(fields)


async def test_event_is_verified_with_the_key_of_its_publisher(tmp_path: Path) -> None:
    network = Network()
    orders = network.process(tmp_path, "orders")
    payments = network.process(tmp_path, "payments")
    inventory = network.process(
        tmp_path, "inventory", service_token_private_key=generate_private_key()
    )

    signers = {
        name: container.process.event_keys().signer_of("payments")
        for name, container in (
            ("payments", payments),
            ("inventory", inventory),
            ("orders", orders),
        )
    }

    assert await defect(orders, signers["payments"]) is None
    assert await defect(orders, signers["inventory"]) == "unknown_key"
    # valid, because the process of orders may have published this event before payments moved to a
    # process of its own
    assert await defect(orders, signers["orders"]) is None


async def test_event_waits_for_an_unreachable_publisher(tmp_path: Path) -> None:
    network = Network()
    orders = network.process(tmp_path, "orders")
    payments = network.process(tmp_path, "payments")
    network.unreachable = {"payments"}

    with pytest.raises(Unavailable):
        await defect(orders, payments.process.event_keys().signer_of("payments"))


async def test_process_without_subscribers_elsewhere_needs_no_key(tmp_path: Path) -> None:
    settings = read_settings(storage="memory", data_dir=tmp_path)

    assert load_or_create_secrets(settings).service_token_private_key == ""
    assert not settings.has_remote_subscribers
