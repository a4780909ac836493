import os
from pathlib import Path
from typing import Final

from platformdirs import user_data_path

# used if this folder exists, because earlier versions stored their data there
_FORMER_DATA_DIR: Final = "~/.local/share/markethall"
# the default for root: Postgres then runs as another user, who cannot enter the home of root
ROOT_DATA_DIRECTORY: Final = Path("/var/lib/markethall")


def default_data_directory() -> Path:
    if os.geteuid() == 0:
        return ROOT_DATA_DIRECTORY
    former = Path(_FORMER_DATA_DIR).expanduser()
    return former if former.exists() else user_data_path("markethall")
