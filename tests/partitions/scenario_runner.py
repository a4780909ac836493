"""Plays a story against a hall, one request after the other, and writes down the answers."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from tests.e2e.servers import ADMIN, CONTEXTS, RunningServer
from tests.partitions.log import Log
from tests.partitions.log_normalizer import leaves
from tests.partitions.server_inspector import TIMEOUT_SECONDS, Clock, ServerInspector

_HEADERS: Final = (
    "content-type",
    "location",
    "etag",
    "cache-control",
    "idempotency-replayed",
    "retry-after",
    "www-authenticate",
    "allow",
    "x-request-id",
)


class ScenarioRunner:
    """Names are people; `tokens` has the access token of each who has signed in."""

    def __init__(
        self, server: RunningServer, http: httpx2.AsyncClient, inspector: ServerInspector
    ) -> None:
        self.log = Log()
        self.tokens: dict[str, str] = {}
        self._server = server
        self._http = http
        self._inspector = inspector
        self._step = 0

    async def get(self, path: str, who: str = "", **options: Any) -> Any:
        return await self.request("GET", path, who, **options)

    async def post(self, path: str, who: str = "", body: Any = None, **options: Any) -> Any:
        """With a key of its own, unless one is given; None for no key."""
        key = options.pop("key", f"key-{self._step + 1}")
        headers = {"idempotency-key": key} if key else {}
        headers |= options.pop("headers", {})
        return await self.request("POST", path, who, headers=headers, json=body, **options)

    async def patch(self, path: str, who: str, body: Any, seen: str = "") -> Any:
        return await self.request(
            "PATCH", path, who, headers={"if-match": seen} if seen else {}, json=body
        )

    async def request(
        self, method: str, path: str, who: str = "", *, headers: Mapping[str, str] = {}, **sent: Any
    ) -> Any:
        """The body of the answer; with its `etag`, if it has one."""
        self._step += 1
        self.log.write(f"#{self._step:03} {method} {path} {f'as {who}' if who else ''}".rstrip())
        answer = await self._send(method, path, who, headers, sent)
        body = _read(answer)
        self._note(answer, body)
        if isinstance(body, dict) and "etag" in answer.headers:
            return {**body, "etag": answer.headers["etag"]}
        return body

    async def sign_up(self, name: str) -> str:
        """A customer, signed in; their id."""
        body = {"username": name, "email": f"{name}@example.com", "password": f"{name} likes tea"}
        user = await self.post("/users", body=body)
        await self.sign_in(name, body["password"])
        return str(user["user_id"])

    async def sign_in(self, name: str, password: str, username: str = "") -> dict[str, Any]:
        form = {"grant_type": "password", "username": username or name, "password": password}
        pair: dict[str, Any] = await self.request("POST", "/token", data=form)
        # who is refused keeps what they have
        self.tokens[name] = pair.get("access_token", self.tokens.get(name, ""))
        return pair

    async def sign_in_admin(self) -> None:
        await self.sign_in("admin", ADMIN[1], ADMIN[0])

    async def stats(self, who: str) -> None:
        """Each process counts what it serves; together they must say what one says."""
        counts: dict[str, int] = {}
        for address in dict.fromkeys(self._server.urls[context] for context in CONTEXTS):
            answer = await self._http.get(f"{address}/stats", headers=self._passport(who))
            counts |= {name: count for name, count in answer.json().items() if count is not None}
        self.log.write(*leaves(dict(sorted(counts.items())), "/stats"))

    async def wait_until_idle(self) -> None:
        await self._inspector.wait_until_idle()

    async def close(self) -> None:
        """The story is told: the rest of the log is what it has left behind."""
        await self.log.close(self._inspector)

    async def make_due(self, clock: Clock, key: str) -> None:
        await self._inspector.make_due(clock, key)

    async def wait_for(self, path: str, who: str, **expected: str) -> None:
        """Asks and does not write down: how often is a matter of time."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        found: dict[str, Any] = {}
        while any(found.get(name) != value for name, value in expected.items()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} is not {expected} but {found}")
            answer = await self._send("GET", path, who, {}, {})
            found = answer.json()
            found = found["items"][0] if "items" in found else found
            await asyncio.sleep(0.02)
        await self.wait_until_idle()

    async def _send(
        self, method: str, path: str, who: str, headers: Mapping[str, str], sent: Mapping[str, Any]
    ) -> httpx2.Response:
        own = {
            "x-request-id": f"scenario-{self._step}",
            "traceparent": f"00-{self._step:032x}-{1:016x}-01",
        }
        return await self._http.request(
            method,
            self._server.url(path),
            headers={**own, **self._passport(who), **headers},
            **sent,
        )

    def _passport(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[who]}"} if who else {}

    def _note(self, answer: httpx2.Response, body: Any) -> None:
        said = [f"{name}: {answer.headers[name]}" for name in _HEADERS if name in answer.headers]
        said += leaves(body) if isinstance(body, (dict, list)) else [f"text: {body}"]
        self.log.write(str(answer.status_code), *said)


def _read(answer: httpx2.Response) -> Any:
    return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
