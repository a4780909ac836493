"""Builds the wheel and the sdist, and uses the wheel in an empty environment as its users do."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx2

import markethall
from markethall.local.postgres import EmbeddedPostgres

_ROOT = Path(__file__).parent.parent
_START_SECONDS = 60


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the embedded Postgres runs as another user if this process is root
        wheel = build(folder / "dist")
        environment = Environment(folder / "venv")
        environment.install(f"{wheel}", constraints=constraints(folder))
        check_without_extras(environment, folder)
        environment.install(f"{wheel}[embedded]", constraints=constraints(folder))
        check_embedded(environment, folder)


def build(target: Path) -> Path:
    """Build the sdist, and from it the wheel. Return the path of the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(_ROOT))
    files = sorted(target.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    print("built", *(file.name for file in files))
    return next(file for file in files if file.suffix == ".whl")


def constraints(folder: Path) -> Path:
    """Write the locked versions without hashes, because pip accepts no hashes of constraints."""
    target = folder / "constraints.txt"
    locked = (_ROOT / "requirements/serve.txt").read_text()
    target.write_text("\n".join(re.findall(r"^\S+==[^\\\n]+", locked, re.MULTILINE)))
    return target


class Environment:
    """An empty virtual environment outside of the checkout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        venv.create(folder, with_pip=True)
        self.command = str(folder / "bin/markethall")

    def install(self, requirement: str, constraints: Path) -> None:
        pip = str(self._folder / "bin/pip")
        quiet = ("--quiet", "--disable-pip-version-check")
        run(pip, "install", *quiet, "--constraint", str(constraints), requirement)

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.command, *arguments],
            env=environ(settings),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def serve_storefront(self) -> Iterator[str]:
        """Run `markethall demo --storefront` and return its URL. End the process with the block."""
        port = free_port()
        command = [self.command, "demo", "--storefront", "--port", str(port)]
        with subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()

    @contextmanager
    def serve(self, *arguments: str, **settings: str) -> Iterator[str]:
        """Run `markethall serve` and return its URL. End the process with the block."""
        port = free_port()
        command = [self.command, "serve", "--port", str(port), *arguments]
        with subprocess.Popen(
            command, env=environ(settings), cwd=self._folder, stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def check_without_extras(environment: Environment, folder: Path) -> None:
    version = environment.run("--version").stdout.strip()
    require(version == markethall.__version__, f"--version printed {version!r}")

    with environment.serve("--memory") as url:
        wait_until_ready(url)

    with environment.serve_storefront() as url:
        for path in ("/", "/config.json", "/markethall-client.js", "/modules/list.js"):
            wait_until(f"{url}{path}")

    with EmbeddedPostgres(folder / "postgres", durable=False) as database_url:
        migrated = environment.run("migrate", database_url=database_url)
        require(migrated.returncode == 0, migrated.stderr)
        with environment.serve(database_url=database_url, data_dir=str(folder / "keys")) as url:
            wait_until_ready(url)
    print("without extras: --version, serve --memory, demo --storefront, migrate, serve: ok")


def check_embedded(environment: Environment, folder: Path) -> None:
    with environment.serve(data_dir=str(folder / "data")) as url:
        wait_until_ready(url)
    print("with markethall[embedded]: serve: ok")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environ(settings: dict[str, str]) -> dict[str, str]:
    """Return the environment without the settings of the caller, and with these."""
    inherited = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
    return inherited | {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}


def wait_until_ready(url: str) -> None:
    wait_until(f"{url}/ready")


def wait_until(url: str) -> None:
    """Request the URL until it responds with 200. A minute later the check fails."""
    deadline = time.monotonic() + _START_SECONDS
    while not responds(url):
        require(time.monotonic() < deadline, f"{url} does not respond after {_START_SECONDS} s")
        time.sleep(0.1)


def responds(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == HTTPStatus.OK
    except httpx2.TransportError:  # not listening yet, or slow
        return False


def require(condition: bool, problem: str) -> None:
    if not condition:
        sys.exit(f"the package is wrong: {problem}")


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
