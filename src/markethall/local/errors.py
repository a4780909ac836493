"""The errors of the embedded servers. Each message is one line for the terminal."""


class EmbeddedError(RuntimeError):
    """A server could not be started."""


class EmbeddedMissing(EmbeddedError):
    """This machine has no suitable server binary."""


class EmbeddedBusy(EmbeddedError):
    """A running server already uses the data directory."""


def busy(directory: str, pid: str) -> EmbeddedBusy:
    return EmbeddedBusy(f"{directory} is in use by process {pid}: stop it, or use another folder")
