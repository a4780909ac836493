"""Records the running local cluster in the data directory, and lists its processes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

_FILE: Final = "cluster.json"
_SERVERS: Final = {"postgres": "Postgres", "valkey-server": "Valkey", "redis-server": "Redis"}


@dataclass(frozen=True)
class ClusterMember:
    """A process of the cluster: the proxy, a service or an embedded server.

    `pid` is None if the process is not running. `url` is empty for an embedded server.
    """

    name: str
    pid: int | None
    url: str


@contextmanager
def recorded(folder: Path, proxy_url: str, urls: Mapping[str, str]) -> Iterator[None]:
    """Record the cluster of this process in a file of the data directory while the block runs."""
    own = psutil.Process()
    file = folder / _FILE
    file.write_text(
        json.dumps(
            {"pid": own.pid, "started": own.create_time(), "proxy": proxy_url, "services": {**urls}}
        )
    )
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_members(folder: Path) -> list[ClusterMember]:
    """Return the processes of the cluster that uses this data directory; [] if none is running."""
    try:
        record = json.loads((folder / _FILE).read_text())
        cluster = psutil.Process(record["pid"])
        # another process may have the pid of a cluster that was killed
        if cluster.create_time() != record["started"]:
            return []
        children = cluster.children(recursive=True)
    except (OSError, psutil.Error):
        return []
    pids = _listening_pids(children)
    services = [
        ClusterMember(context, pids.get(urlsplit(url).port or 0), url)
        for context, url in record["services"].items()
    ]
    proxy = ClusterMember("proxy", cluster.pid, record["proxy"])
    return [proxy, *services, *_embedded_servers(cluster, children)]


def _listening_pids(processes: list[psutil.Process]) -> dict[int, int]:
    """Map each listening port to the pid of the process that listens on it."""
    pids = {}
    for process in processes:
        with suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    pids[connection.laddr.port] = process.pid
    return pids


def _embedded_servers(
    cluster: psutil.Process, children: list[psutil.Process]
) -> Iterator[ClusterMember]:
    for child in children:
        with suppress(psutil.Error):
            if child.ppid() == cluster.pid and (name := _SERVERS.get(child.name())):
                yield ClusterMember(name, child.pid, "")
