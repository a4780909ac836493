"""When the server may answer by a head's bytes alone, and when the parser has to read them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from markethall.server import HallConfig, HallProtocol
from markethall.shared.hatch import Hatch
from markethall.shared.heads import Asked, Heads
from markethall.shared.limits import Limits
from markethall.shared.redis import RedisClient
from markethall.shared.warm import Held, Ready, Warm

PATH = "/things"
KNOWN = b"GET /things HTTP/1.1\r\nHost: hall\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: hall\r\n\r\n"
# as the server reads them, not as they are sent
ODD = ("/a%41", "/a#b", "/\xe7")
HELD = Held("space", "key", b"value")
IDLE = 15.0


class Kept:
    def peek(self, space: str, key: str) -> bytes | None:
        return HELD.value if (space, key) == (HELD.space, HELD.key) else None


class App:
    """Answers 200 with the path as soon as the gate is open; an early one before its body."""

    def __init__(self, hatch: Hatch) -> None:
        self.front = SimpleNamespace(hatch=hatch)
        self.gate = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while scope["path"] != "/early" and (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await self.gate.wait()
        text = scope["path"].encode()
        length = (b"content-length", b"%d" % len(text))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": text})


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 80), "peername": ("192.0.2.1", 5)}.get(name, default)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Loop:
    """The running loop, whose time is told: timers go when it is said to be later."""

    def __init__(self) -> None:
        self._real = asyncio.get_running_loop()
        self._now = 0.0
        self._timers: list[tuple[float, Callable[[], None], Any]] = []

    def time(self) -> float:
        return self._now

    def create_task(self, work: Any) -> Any:
        return self._real.create_task(work)

    def call_later(self, delay: float, what: Callable[[], None]) -> Any:
        timer = SimpleNamespace(cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self._timers.append((self._now + delay, what, timer))
        return timer

    def pass_by(self, seconds: float) -> None:
        end = self._now + seconds
        while due := [it for it in self._timers if it[0] <= end]:
            first = min(due, key=lambda it: it[0])
            self._timers.remove(first)
            self._now, what, timer = first
            if not timer.cancelled:
                what()
        self._now = end


@dataclass
class Line:
    """A connection, without a socket, to an app that has one answer ready."""

    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        warm = Warm(Kept())
        for path in (PATH, *ODD):
            scope = {"path": path, "query_string": b""}
            warm.keep(scope, Ready(HELD, path, b"ready", '"v1"', b"public"))
        owners = {path[1:]: "here" for path in (PATH, *ODD)}
        self.hatch = Hatch(warm, 32_768, owners, Limits("off", RedisClient(None)), ())
        self.app, self.wire, self.loop = App(self.hatch), Wire(), Loop()
        config = HallConfig(
            self.app,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=int(IDLE),
        )
        for name, value in self.settings.items():
            setattr(config, name, value)
        self.state = ServerState()
        self.protocol = HallProtocol(config, self.state, {}, _loop=self.loop)  # type: ignore[arg-type]  # what is used of one
        self.protocol.connection_made(self.wire)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.data_received(part)

    async def settled(self) -> list[bytes]:
        """What was answered, when nothing more can be done: bodies without their heads."""
        for _ in range(20):
            await asyncio.sleep(0)
        return [
            answer.partition(b"\r\n\r\n")[2] for answer in self.wire.sent.split(b"HTTP/1.1 ")[1:]
        ]

    @property
    def known(self) -> bool:
        """The head is known: how it comes to be is another test's."""
        return self.hatch.heads.find(KNOWN) is not None


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    line.send(KNOWN, KNOWN)
    assert line.known
    line.wire.sent = b""
    line.state.total_requests = 0
    yield line
    line.app.gate.set()
    await line.settled()


async def test_a_known_head_never_reaches_the_parser(line: Line) -> None:
    line.protocol.parser = None  # type: ignore[assignment]  # nobody is there to read

    line.send(KNOWN, KNOWN)

    assert await line.settled() == [b"ready", b"ready"]
    assert line.app.bodies == []
    assert line.state.total_requests == 2


async def test_a_known_head_waits_behind_a_slow_answer(line: Line) -> None:
    line.send(SLOW, KNOWN)
    before = await line.settled()
    line.app.gate.set()

    assert before == []
    assert await line.settled() == [b"/slow", b"/things"]


async def test_several_known_heads_behind_a_slow_answer_keep_their_places(line: Line) -> None:
    line.send(SLOW + KNOWN, KNOWN, SLOW, KNOWN)
    line.app.gate.set()

    bodies = await line.settled()

    # what waits in a row goes to the application
    assert bodies == [b"/slow", b"/things", b"/things", b"/slow", b"/things"]


async def test_a_body_of_the_same_bytes_is_a_body(line: Line) -> None:
    line.app.gate.set()
    head = b"POST /things HTTP/1.1\r\nHost: hall\r\nContent-Length: %d\r\n\r\n" % len(KNOWN)

    line.send(head, KNOWN)

    assert await line.settled() == [b"/things"]
    assert line.app.bodies == [KNOWN]


async def test_who_asks_for_more_in_the_same_breath_has_it_all(line: Line) -> None:
    line.app.gate.set()
    head = b"POST /things HTTP/1.1\r\nHost: hall\r\nContent-Length: 4\r\n\r\n"

    line.send(b"\r\n" + KNOWN + head + b"abcd")

    assert await line.settled() == [b"ready", b"/things"]
    assert line.app.bodies == [b"abcd"]


async def test_a_head_behind_the_rest_of_a_body_is_not_known_with_it(line: Line) -> None:
    line.app.gate.set()
    line.send(b"POST /early HTTP/1.1\r\nHost: hall\r\nContent-Length: 4\r\n\r\nab")
    await line.settled()

    line.send(b"cd" + KNOWN)
    line.send(b"POST /early HTTP/1.1\r\nHost: hall\r\nContent-Length: 4\r\n\r\nab")
    await line.settled()
    line.send(b"cd" + KNOWN)

    assert await line.settled() == [b"/early", b"ready"] * 2
    assert line.hatch.heads.find(b"cd" + KNOWN) is None


async def test_the_rest_of_a_head_is_the_rest_of_a_head(line: Line) -> None:
    line.app.gate.set()

    line.send(b"GET /slow HTTP/1.1\r\nX-Quoted: ", KNOWN)

    assert await line.settled() == [b"/slow"]


async def test_the_first_letter_of_a_head_is_enough_to_be_inside_one(line: Line) -> None:
    line.send(b"G", KNOWN)

    # GGET is no method
    assert line.wire.sent.startswith(b"HTTP/1.1 400 ")
    assert line.wire.closed


async def test_what_two_heads_in_one_ask_is_not_kept(line: Line) -> None:
    line.send(KNOWN + KNOWN, KNOWN + KNOWN)

    assert await line.settled() == [b"ready"] * 4
    assert line.hatch.heads.find(KNOWN + KNOWN) is None


@pytest.mark.parametrize(
    "head",
    [
        b"HEAD /things HTTP/1.1\r\nHost: hall\r\n\r\n",
        b"GET /things HTTP/1.0\r\nHost: hall\r\nConnection: keep-alive\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nConnection: close\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nExpect: 100-continue\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nContent-Length: 0\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nAuthorization: Bearer x\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nCookie: a=b\r\n\r\n",
        b"GET /other HTTP/1.1\r\nHost: hall\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: hall\r\nX-Much: " + b"x" * 2048 + b"\r\n\r\n",
    ],
)
async def test_what_is_unusual_is_read_each_time(head: bytes) -> None:
    line = Line()
    line.app.gate.set()

    for _ in range(3):
        line.send(head)
        await line.settled()

    assert b"HTTP/1.1 200 OK" in line.wire.sent
    assert len(line.hatch.heads) == 0


async def test_behind_an_upgrade_the_parser_decides(line: Line) -> None:
    line.app.gate.set()
    line.send(b"GET /up HTTP/1.1\r\nHost: hall\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
    await line.settled()
    line.protocol.parser = None  # type: ignore[assignment]  # nobody is there to read

    with pytest.raises(AttributeError):
        line.send(KNOWN)


async def test_who_leaves_is_not_answered_any_more(line: Line) -> None:
    line.protocol.shutdown()

    line.send(KNOWN)

    assert line.wire.closed
    assert b"ready" not in line.wire.sent


async def test_who_does_not_read_is_not_written_to(line: Line) -> None:
    line.app.gate.set()
    line.protocol.pause_writing()
    line.send(KNOWN)
    before = await line.settled()

    line.protocol.resume_writing()

    assert before == []
    assert await line.settled() == [b"/things"]


async def test_a_crowd_has_to_be_counted() -> None:
    line = Line({"limit_concurrency": 1})

    line.send(KNOWN)
    await line.settled()
    line.send(KNOWN)
    await line.settled()

    assert line.wire.sent.startswith(b"HTTP/1.1 503 ")
    assert not line.known


async def test_an_idle_line_ends_so_long_after_its_last_answer(line: Line) -> None:
    for _ in range(5):
        line.loop.pass_by(IDLE - 1)
        line.send(KNOWN)

    line.loop.pass_by(IDLE - 1)
    before = line.wire.closed
    line.loop.pass_by(1)

    assert not before
    assert line.wire.closed


async def test_a_line_is_not_idle_while_it_waits_for_its_second_answer(line: Line) -> None:
    line.send(KNOWN + SLOW)

    line.loop.pass_by(2 * IDLE)
    line.app.gate.set()

    assert await line.settled() == [b"ready", b"/slow"]
    assert not line.wire.closed
    line.loop.pass_by(IDLE)
    assert line.wire.closed


async def test_a_line_whose_first_head_is_known_ends_when_idle_too(line: Line) -> None:
    other = Line()
    for _ in range(2):
        other.hatch.heads.keep(KNOWN, Asked((PATH, b""), {}, "here"))
    other.send(KNOWN)

    other.loop.pass_by(IDLE - 1)
    before = other.wire.closed
    other.loop.pass_by(1)

    assert not before
    assert other.wire.closed


async def test_half_a_head_behind_a_known_one_is_waited_for_only_so_long(line: Line) -> None:
    line.send(KNOWN, b"GET ")

    line.loop.pass_by(HallConfig.head_timeout)

    assert line.wire.closed


async def test_the_date_is_the_servers(line: Line) -> None:
    line.state.default_headers = [(b"date", b"one")]
    line.send(KNOWN)
    line.state.default_headers[0] = (b"date", b"two")
    line.send(KNOWN)

    _, first, second = line.wire.sent.split(b"HTTP/1.1 ")
    assert b"\r\ndate: one\r\n" in first
    assert b"\r\ndate: two\r\n" in second


def test_so_many_bytes_of_heads_are_kept_and_no_more() -> None:
    heads = Heads(most_bytes=100_000)
    asked = Asked((PATH, b""), {}, "here")

    for number in range(1000):
        heads.keep(b"%1000d" % number, asked)
        heads.keep(b"%1000d" % number, asked)

    assert 1 <= len(heads) <= 100
    assert heads.find(b"%1000d" % 999) is asked


def test_a_head_that_comes_once_is_not_kept() -> None:
    heads = Heads()
    asked = Asked((PATH, b""), {}, "here")

    for number in range(20_000):
        heads.keep(b"%d" % number, asked)

    assert len(heads) == 0


async def test_what_is_ready_is_handed_out_at_first_sight_too() -> None:
    line = Line()

    line.send(KNOWN)

    assert await line.settled() == [b"ready"]
    assert line.protocol.cycle is None
    assert line.state.total_requests == 1


@pytest.mark.parametrize(
    "target",
    [b"/a%41", b"/a#b", b"/\xc3\xa7", b"/\xe7", b"//things", b"/things/", b"*"],
)
async def test_a_target_in_another_form_is_read_by_the_server(target: bytes) -> None:
    line = Line()
    line.app.gate.set()

    line.send(b"GET " + target + b" HTTP/1.1\r\nHost: hall\r\n\r\n")

    assert b"ready" not in await line.settled()
    assert line.wire.sent.startswith(b"HTTP/1.1 ")
