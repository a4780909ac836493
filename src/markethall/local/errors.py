"""Why there is no server. Each text is one line for the person at the terminal."""


class EmbeddedError(RuntimeError):
    """A server could not be started."""


class EmbeddedMissing(EmbeddedError):
    """There is no server binary on this machine that would do."""


class EmbeddedBusy(EmbeddedError):
    """The data directory belongs to a server that is still alive."""


def busy(what: str, holder: str) -> EmbeddedBusy:
    """The refusal that names the process to stop."""
    return EmbeddedBusy(f"{what} is in use by process {holder}: stop it, or use another folder")
