"""Keys that make the retry of a command safe."""

from typing import Final
from uuid import uuid4

IDEMPOTENCY_KEY_HEADER: Final = "Idempotency-Key"


def new_key() -> str:
    """Return a random key for one call: `place_order(body=…, idempotency_key=new_key())`.

    Automatic retries of the call send the same key. To repeat a call after a restart, store the
    key before the call.
    """
    return str(uuid4())
