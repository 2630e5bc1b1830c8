"""An embedded Valkey or Redis server that lives and dies with its parent.

``EmbeddedServer`` runs a real server process beside the program: a random
password, a private directory, and a port of its own. ``find_binary`` says which
server would be run.
"""

from academy.embedded.binary import find_binary
from academy.embedded.error import ServerNotFoundError, ServerStartError
from academy.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "ServerNotFoundError", "ServerStartError", "find_binary"]
