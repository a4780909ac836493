"""Forged signature headers of webhooks, of the form `t=<unix time>,v1=<signature>`."""

from collections.abc import Iterator
from random import Random
from typing import Final

from markethall.payments.gateway.webhook_signatures import sign

RANDOM_FORGERIES: Final = 10_000
_SEED: Final = 20261130
_HEX: Final = "0123456789abcdef"


def crafted_headers(key: bytes, body: bytes, now: int) -> dict[str, str | None]:
    """Map names to invalid headers that resemble a valid header of the body."""
    good = sign(key, now, body)
    arabic = str(now).translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    return {
        "none": None,
        "empty": "",
        "only time": f"t={now}",
        "only signature": f"v1={good}",
        "no value": f"t={now},v1=",
        "other scheme": f"t={now},v0={good}",
        "upper case scheme": f"t={now},V1={good}",
        "upper case digits": f"t={now},v1={good.upper()}",
        "shortened": f"t={now},v1={good[:-1]}",
        "extended": f"t={now},v1={good}0",
        "one digit": f"t={now},v1={good[:-1]}{'0' if good[-1] != '0' else '1'}",
        "reversed": f"t={now},v1={good[::-1]}",
        "other time": f"t={now + 1},v1={good}",
        "two times": f"t={now},t={now},v1={good}",
        "time is a float": f"t={now}.0,v1={good}",
        "time is negative": f"t=-{now},v1={good}",
        "time has a sign": f"t=+{now},v1={good}",
        "time is hexadecimal": f"t={now:#x},v1={good}",
        "time has other digits": f"t={arabic},v1={good}",
        "time is huge": f"t={'9' * 11},v1={good}",
        "time is endless": f"t={'9' * 400},v1={good}",
        "semicolons": f"t={now};v1={good}",
        "behind the limit": "x=" + "y" * 300 + f",t={now},v1={good}",
        "signature of nothing": f"t={now},v1={sign(key, now, b'')}",
        "signature of another body": f"t={now},v1={sign(key, now, body + b' ')}",
        "signed without time": f"t={now},v1={sign(key, 0, body)}",
        "signed with a part of the key": f"t={now},v1={sign(key[:6], now, body)}",
        "signed with no key": f"t={now},v1={sign(b'', now, body)}",
        "old": f"t={now - 302},v1={sign(key, now - 302, body)}",
        "from the future": f"t={now + 302},v1={sign(key, now + 302, body)}",
        "not ascii": f"t={now},v1=é{good}",
    }


def random_headers(key: bytes, body: bytes, now: int, count: int) -> Iterator[str]:
    """Yield random signatures, changed signatures, and signatures by other keys or times."""
    random = Random(_SEED)
    good = sign(key, now, body)
    makers = (
        lambda: f"t={now},v1={random.randbytes(32).hex()}",
        lambda: f"t={now},v1={_change_digit(good, random)}",
        lambda: f"t={now},v1={sign(random.randbytes(32), now, body)}",
        lambda: f"t={now + random.choice([-1, 1]) * random.randint(1, 299)},v1={good}",
    )
    for number in range(count):
        yield makers[number % len(makers)]()


def _change_digit(signature: str, random: Random) -> str:
    position = random.randrange(len(signature))
    other = random.choice(_HEX.replace(signature[position], ""))
    return signature[:position] + other + signature[position + 1 :]
