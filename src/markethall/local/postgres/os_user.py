"""Finds the operating system user that runs Postgres, which refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from markethall.local.errors import EmbeddedError
from markethall.local.server_process import OsUser, run

_OVERFLOW_ID = 65534  # Linux shows this id for users that have no mapping in a user namespace


def find_os_user(program: str, cluster: Path) -> OsUser | None:
    """Return the first user that can run the program and enter the directory of the cluster.

    It starts a real process for each user, because not only the mode bits of the directories
    decide, but also access lists, mounts and containers.
    """
    return next(
        (user for user in _candidates(cluster) if _can_work(user, program, cluster.parent)), None
    )


def make_data_dir(folder: Path) -> None:
    """Create the directory if it is missing. As root, let all users enter it.

    chmod is needed, because the umask restricts the mode of mkdir.
    """
    if folder.exists():
        return
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        folder.chmod(0o755)


def chown(folder: Path, user: OsUser) -> None:
    """Make the user the owner of the directory and everything in it."""
    if folder.stat().st_uid == user.uid:
        return
    # The owner of the directory itself is changed last, because the check above reads it: after an
    # interruption, the next call then repeats the walk.
    for path, folders, files in os.walk(folder, topdown=False):
        for name in [*folders, *files]:
            os.chown(Path(path) / name, user.uid, user.gid, follow_symlinks=False)
    os.chown(folder, user.uid, user.gid)


def _candidates(cluster: Path) -> Iterator[OsUser]:
    """Yield the users to try, in order.

    - If this process runs as root: the owner of the data, then the user `nobody`.
    - Otherwise: the current user, if it has a name. initdb refuses a user without a name, which may
      occur in Kubernetes (runAsUser).
    - Always last: the current user, in a user namespace where it appears as `nobody`. This works
      even if `nobody` cannot enter the directory, but containers often forbid user namespaces.
    """
    current, nobody = OsUser.current(), _nobody()
    if current.uid == 0:
        if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
            yield OsUser(owner.st_uid, owner.st_gid)
        yield nobody
    elif _has_name(current.uid):
        yield current
    yield OsUser(current.uid, current.gid, namespace_mapping=(nobody.uid, nobody.gid))


def _can_work(user: OsUser, program: str, folder: Path) -> bool:
    try:
        run([program, "--version"], user, at=folder)
    except (OSError, subprocess.SubprocessError, EmbeddedError):
        return False
    return True


def _nobody() -> OsUser:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return OsUser(_OVERFLOW_ID, _OVERFLOW_ID)
    return OsUser(entry.pw_uid, entry.pw_gid)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
