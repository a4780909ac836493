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

T = TypeVar("T")

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 256

# not a secret; it makes the digests differ from those that another program makes of a password
_DIGEST_KEY: Final = b"markethall password v1"

# passwords of public lists that are long enough for MIN_LENGTH (NIST 800-63B, section 3.1.1.2)
_COMMON_PASSWORDS_TEXT = """
    password password1 password12 password123 password1234 password! passw0rd p@ssword p@ssw0rd
    pa55word pa$$word passwort passwort1 motdepasse contraseña wachtwoord 12345678 123456789
    1234567890 12345678910 0123456789 123456789a 1234567a 12345678a a12345678 a123456789 87654321
    987654321 9876543210 0987654321 11111111 111111111 1111111111 00000000 0000000000 22222222
    55555555 66666666 77777777 88888888 88888888888 99999999 12341234 12344321 11223344 1122334455
    11112222 12121212 10203040 123123123 123321123 147258369 147852369 159357456 789456123
    741852963 987456321 aaaaaaaa aaaaaaaaaa abcd1234 abcdefgh abcdefg1 abc12345 abc123456 1234abcd
    1q2w3e4r 1q2w3e4r5t 1qaz2wsx 1qazxsw2 q1w2e3r4 q1w2e3r4t5 qwertyui qwertyuiop qwerty12
    qwerty123 qwerty1234 qwerty12345 qwertz123 azerty123 azertyuiop asdfasdf asdfghjk asdfghjkl
    asdf1234 zxcvbnm1 zxcvbnm, zaq12wsx zaq1zaq1 iloveyou iloveyou1 iloveyou2 ilovegod
    sunshine sunshine1 princess princess1 football football1 baseball baseball1 basketball
    superman superman1 spiderman startrek starwars starwars1 whatever trustno1 trustno1!
    welcome1 welcome123 welcome2 letmein1 letmein123 changeme changeme1 changeme123 default1
    computer internet michelle jennifer jonathan victoria charlie1 michael1 jordan23 babygirl
    liverpool chelsea1 arsenal1 barcelona realmadrid corvette mercedes mustang1 maverick
    midnight mountain elephant dolphins butterfly chocolate cheesecake blink182 pokemon1
    administrator admin123 admin1234 admin12345 admin@123 adminadmin rootroot root1234 test1234
    test12345 testtest testing1 testing123 guest123 user1234 secret123 security qazwsxedc
    samsung1 microsoft facebook linkedin google123 access14 master123 dragon123 monkey123
    shadow123 hello123 helloworld goodluck freedom1 password0 pass1234 pass12345 passpass
    markethall markethall1 markethall123
"""
COMMON_PASSWORDS: Final = frozenset(_COMMON_PASSWORDS_TEXT.split())


def weakness(password: str, *personal: str) -> str | None:
    """Return why a password is rejected, or None.

    By NIST 800-63B there are rules for the length, but none for kinds of characters.
    The password may not equal one of the `personal` words, such as the username.
    """
    text = normalize("NFKC", password)
    if len(text) < MIN_LENGTH:
        return "too_short"
    if len(text) > MAX_LENGTH:
        return "too_long"
    if text.casefold() in COMMON_PASSWORDS:
        return "too_common"
    if text.casefold() in {normalize("NFKC", word).casefold() for word in personal}:
        return "personal"
    return None


class Passwords:
    """Hashes and verifies passwords in `workers` threads.

    At most `queue` further jobs wait. When the queue is full, methods raise Overloaded at once.
    """

    def __init__(self, cost: int, workers: int = 2, queue: int = 32) -> None:
        self._cost = cost
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
        # also called when the job is cancelled before it starts
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)


def _prehash(password: str) -> bytes:
    """Return 44 ASCII bytes that depend on the whole password, in Unicode form NFKC."""
    text = normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.digest(_DIGEST_KEY, text, "sha256"))
