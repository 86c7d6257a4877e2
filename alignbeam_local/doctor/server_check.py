"""Does a server of this user run, and what does it hold?"""

from collections.abc import Iterator

from ..warm.found_server import running_servers
from .findings import Finding


def servers() -> Iterator[Finding]:
    """One finding for each pair that a server holds; none where no server runs."""
    for server in running_servers():
        files = {what: file.path for what, file in server.files.items()}
        yield Finding(
            "server",
            "ok",
            f"process {server.pid} holds the models of {server.pair}: ask, filter and chat use them",
            details={"pid": server.pid, "pair": server.pair, "files": files},
        )
