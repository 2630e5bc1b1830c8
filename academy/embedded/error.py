"""What can go wrong with an embedded server."""


class ServerNotFoundError(RuntimeError):
    """No usable server binary was found; the message names ways to install one."""


class ServerStartError(RuntimeError):
    """The server did not start; the message says why, or ends with its log."""
