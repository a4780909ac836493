"""Password rules and password hashes.

The password is hashed by HMAC-SHA-256 before bcrypt, because bcrypt reads only 72 bytes and stops
at a NUL. A bcrypt hash takes about a quarter of a second of CPU time, so a thread pool with a
bounded queue computes them.
"""

import asyncio
import base64
import hmac
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from unicodedata import normalize

import bcrypt

from markethall.shared.kernel.errors import Overloaded
from markethall.shared.security.common_passwords import common_passwords

T = TypeVar("T")

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 256

# Not a secret. With this key, the input of bcrypt differs from the plain SHA-256 of a password, so
# that leaked SHA-256 hashes of other sites cannot be tried against the bcrypt hashes.
_DIGEST_KEY: Final = b"markethall password v1"


def weakness(password: str, *personal: str) -> str | None:
    """Return why a password is rejected, or None.

    As NIST SP 800-63B recommends, the length is checked, but not which kinds of characters occur.
    The password must not be equal to one of the `personal` words, such as the username.
    """
    text = normalize("NFKC", password)
    if len(text) < MIN_LENGTH:
        return "too_short"
    if len(text) > MAX_LENGTH:
        return "too_long"
    if text.casefold() in common_passwords():
        return "too_common"
    if text.casefold() in {normalize("NFKC", word).casefold() for word in personal}:
        return "personal"
    return None


class Passwords:
    """Hashes and verifies passwords in `workers` threads.

    At most `queue` further jobs wait for a thread. A method raises Overloaded at once if the queue
    is full, and after `max_wait_seconds` if its job has not started.
    """

    def __init__(
        self, cost: int, workers: int = 2, queue: int = 32, max_wait_seconds: float = 2
    ) -> None:
        self._cost = cost
        self._max_wait_seconds = max_wait_seconds
        self._slots = threading.BoundedSemaphore(workers + queue)
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="passwords")
        # matches no password; verifying it takes as long as verifying a real hash
        self._dummy_hash = bcrypt.gensalt(cost) + b"." * 31

    async def hash(self, password: str) -> str:
        """Return the hash of a password. Raises Overloaded."""
        digest = _prehash(password)
        return await self._run_in_executor(
            lambda: bcrypt.hashpw(digest, bcrypt.gensalt(self._cost)).decode()
        )

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether the password has this hash. Raises Overloaded.

        For an unknown user the hash is None; the result is then False and takes the same time.
        """
        digest = _prehash(password)
        compared_hash = self._dummy_hash if password_hash is None else password_hash.encode()
        is_match = await self._run_in_executor(lambda: bcrypt.checkpw(digest, compared_hash))
        return is_match and password_hash is not None

    def close(self) -> None:
        """Let running jobs finish and drop waiting ones."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run_in_executor(self, job: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise Overloaded("Too many passwords are being checked.", retry_after=1)
        try:
            future = self._executor.submit(job)
        except RuntimeError:  # the executor is shut down
            self._slots.release()
            raise Overloaded("The process is ending.", retry_after=1) from None
        # released in a callback, because that also runs if the job is cancelled before its start
        future.add_done_callback(lambda _: self._slots.release())
        result = asyncio.wrap_future(future)
        try:
            await asyncio.wait({result}, timeout=self._max_wait_seconds)
        except asyncio.CancelledError:
            result.cancel()
            raise
        # only a job that still waits can be cancelled; the result of a running one is awaited
        if not result.done() and future.cancel():
            raise Overloaded("Too many passwords are being checked.", retry_after=2)
        return await result


def _prehash(password: str) -> bytes:
    """Return the HMAC-SHA-256 of the NFKC form of the password, in base64: 44 ASCII bytes."""
    text = normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.digest(_DIGEST_KEY, text, "sha256"))
