"""Does a server of this user run, and what does it hold?"""

from collections.abc import Iterator

from ..models.registry import Registry
from ..warm.found_server import running_servers
from .findings import Finding


def servers(registry: Registry) -> Iterator[Finding]:
    """One finding for each pair that a server holds; none where no server runs."""
    for server in running_servers():
        files = {what: file.path for what, file in server.files.items()}
        details = {"pid": server.pid, "pair": server.pair, "files": files}
        holds = f"process {server.pid} holds the models of {server.pair}"
        if changed := server.outdated(registry):
            message = f"{holds}; since then {', '.join(changed)} changed: what needs that does not use them"
            yield Finding("server", "warning", message, "Start the server again.", details)
        else:
            yield Finding("server", "ok", f"{holds}: ask, filter and chat use them", details=details)
