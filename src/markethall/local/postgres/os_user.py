"""Which user runs Postgres, which refuses root."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from markethall.embedded.errors import EmbeddedError
from markethall.embedded.processes import Account, run

_OVERFLOW_ID = 65534  # what Linux itself calls somebody it does not know


def account_for(program: str, cluster: Path) -> Account:
    """The first account that can run the program and enter the folder of the cluster.

    Tried, not computed from mode bits: access lists, mounts and containers have a say as well.
    """
    for account in _accounts(cluster):
        if _can_work(account, program, cluster.parent):
            return account
    folders = f"{cluster.parent} and {Path(program).parent}"
    text = f"Postgres refuses root, and the user nobody cannot enter {folders}"
    raise EmbeddedError(f"{text}: start as an ordinary user, or use folders open to all")


def give(folder: Path, account: Account) -> None:
    """Make the account the owner of the folder and of all that is in it."""
    if folder.stat().st_uid == account.uid:
        return
    # Bottom-up: the folder itself changes last, so an interrupted walk is seen and repeated.
    for path, folders, files in os.walk(folder, topdown=False):
        for name in [*folders, *files]:
            os.chown(Path(path) / name, account.uid, account.gid, follow_symlinks=False)
    os.chown(folder, account.uid, account.gid)


def _accounts(cluster: Path) -> Iterator[Account]:
    """Who may try, in this order.

    Root becomes the owner of the data, or nobody. Where these cannot go (a closed home), a
    user namespace makes root itself look like nobody; containers often forbid that, hence last.
    initdb refuses a user without a name (runAsUser in Kubernetes): the same mask helps.
    """
    ours, nobody = Account.ours(), _nobody()
    if ours.uid == 0:
        if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
            yield Account(owner.st_uid, owner.st_gid)
        yield nobody
    elif _has_name(ours.uid):
        yield ours
    yield Account(ours.uid, ours.gid, mask=(nobody.uid, nobody.gid))


def _can_work(account: Account, program: str, folder: Path) -> bool:
    try:
        run([program, "--version"], account, at=folder)
    except (OSError, subprocess.SubprocessError, EmbeddedError):
        return False
    return True


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(_OVERFLOW_ID, _OVERFLOW_ID)
    return Account(entry.pw_uid, entry.pw_gid)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
