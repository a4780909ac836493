"""People: signing up and in, getting a job, being banned."""

from typing import Any

from tests.partitions.scenario.steps import NOWHERE, placed
from tests.partitions.scenario_runner import ScenarioRunner


async def people(p: ScenarioRunner) -> None:
    for name in ("anna", "ben", "carl", "dora"):
        await p.sign_up(name)
    await p.post("/users", body=_registration("ANNA", "other@example.com"))
    await p.post("/users", body=_registration("anna2", "Anna@Example.com"))
    await p.post("/users", body=_registration("eve", "eve@example.com", password="12345678"))
    await p.post("/users", body={"username": "x", "email": "no address", "extra": 1})
    await p.sign_in("nobody", "wrong password", "anna")
    await p.sign_in("nobody", "wrong password", "who")
    await _sessions(p)
    me = await p.get("/users/me", "anna")
    await p.get("/users/me", "anna", headers={"if-none-match": me["etag"]})
    await p.patch("/users/me", "anna", {"full_name": "Anna Ünal", "tags": ["new", "tea"]})
    await p.patch("/users/me", "anna", {"full_name": "late"}, seen=me["etag"])
    change = {"current_password": "ben likes tea", "new_password": "ben likes coffee"}
    await p.post("/users/me/password", "ben", change)
    await p.post("/users/me/password", "ben", change)
    await p.sign_in("ben", "ben likes coffee")
    await p.get("/users/me")
    await p.get("/users", "anna")
    await p.get("/users?limit=2", "admin")
    await p.get("/.well-known/jwks.json")


def _registration(name: str, email: str, password: str = "a long enough one") -> dict[str, str]:  # noqa: S107 - opens nothing
    return {"username": name, "email": email, "password": password}


async def _sessions(p: ScenarioRunner) -> None:
    first = await p.sign_in("carl", "carl likes tea")
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = await p.request("POST", "/token", data=form)
    await p.request("POST", "/token/revoke", data={"token": second["refresh_token"]})
    form["refresh_token"] = second["refresh_token"]
    await p.request("POST", "/token", data=form)
    await p.request("POST", "/token", data={"grant_type": "magic"})


async def staff(p: ScenarioRunner, goods: dict[str, str]) -> None:
    """Somebody gets a job, and sees no more than it needs."""
    await _appoint(p, "dora", {"roles": ["staff:orders"]})
    await p.sign_in("dora", "dora likes tea")
    for path in ("/orders?limit=2&status=processing", f"/products/{goods['tea']}/stock"):
        await p.get(path, "dora")
    await p.get("/transactions", "dora")
    await p.stats("dora")
    page = await p.get("/orders?limit=3&sort=created_at", "dora")
    await p.get(f"/orders?limit=3&sort=created_at&cursor={page['next_cursor']}", "dora")
    await p.get(f"/orders?limit=3&cursor={page['next_cursor']}", "dora")
    await p.get("/orders?limit=0", "dora")
    await _appoint(p, "dora", {"roles": ["king"]})
    await _appoint(p, "admin", {"roles": ["customer"]})


async def _appoint(p: ScenarioRunner, name: str, change: dict[str, Any]) -> None:
    me = await p.get("/users/me", name)
    path = f"/users/{me.get('user_id', NOWHERE)}"
    found = await p.get(path, "admin")
    await p.patch(path, "admin", change)
    await p.patch(path, "admin", change, seen=found.get("etag", '"v1"'))


async def banned(p: ScenarioRunner, goods: dict[str, str]) -> None:
    """Another context's word about a person, at once, with a token that is good for a while."""
    me = await p.get("/users/me", "ben")
    for active in (False, True):
        found = await p.get(f"/users/{me['user_id']}", "admin")
        path = f"/users/{me['user_id']}"
        await p.patch(path, "admin", {"is_active": active}, seen=found["etag"])
        await placed(p, "ben", {goods["tea"]: 1})
        await p.get("/users/me", "ben")
        await p.sign_in("ben", "ben likes coffee")
