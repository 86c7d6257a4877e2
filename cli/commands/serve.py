"""`alignbeam serve`: one process that keeps the models warm, for every program that speaks OpenAI's API."""

from pathlib import Path
from typing import Annotated

import typer

from alignbeam_local.paths import user_path

from .. import session
from ..options import Options, with_options_but
from ..serve.access import keys
from ..serve.duration import seconds
from ..serve.extra import require_extra
from ..serve.reports import reports_by_name
from ..serve.slots import with_slots

_PORT = 8017


@with_options_but("json", "trace", "no_server")
def serve(
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="where to listen; beyond this machine with a key")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="0: any that is free")
    ] = _PORT,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="PROFILE", help="a further profile to serve; repeatable"),
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(
            "--api-key-file", metavar="FILE", help="keys, one a line; without it ALIGNBEAM_API_KEY is one"
        ),
    ] = None,
    allow_knobs: Annotated[
        bool,
        typer.Option(
            "--allow-knobs",
            metavar="",
            help="clients may turn every knob, and see text that no verdict has passed",
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="a further name of this server; repeatable (beyond this machine, without one any will do)",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", metavar="URL", help="pages of this origin may ask; repeatable"),
    ] = None,
    queue: Annotated[
        int, typer.Option("--queue", min=0, max=4096, metavar="N", help="how many requests may wait")
    ] = 16,
    idle: Annotated[
        str | None,
        typer.Option("--idle", metavar="TIME", help="free models that nobody used for so long (10m)"),
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            "--report",
            parser=user_path,
            metavar="FILE",
            help="a page of `eval report --out FILE.html` that the server's page links to; repeatable",
        ),
    ] = None,
    options: Options,
) -> None:
    """Serve the pair to any client of OpenAI's API, on this machine.

    One process keeps the models loaded and answers several people at once (`--parallel`, 4 unless set).
    Text is shown after its verdict. A blocked answer has `finish_reason` content_filter.
    `ask`, `filter` and `chat` use a server of the same models when one runs.
    Ctrl-C lets running answers end, a second one does not. No prompt or answer is written anywhere.

    ```sh
    alignbeam serve
    alignbeam serve --profile recommended --draft ./my-model.gguf --idle 10m
    alignbeam serve --host 0.0.0.0 --api-key-file keys.txt
    curl http://127.0.0.1:8017/v1/models
    ```
    """
    require_extra()
    from alignbeam_local.server.served import as_served

    from ..serve.run import Access, run

    found = keys(api_key_file)
    access = Access(host, port, found, allow_host or [], allow_origin or [], allows_knobs=allow_knobs)
    idle_seconds = seconds(idle, "--idle")
    prepared = session.prepare(options, with_slots, as_served)
    run(
        prepared,
        also or [],
        access,
        reports_by_name(report or []),
        queue_limit=queue,
        idle_seconds=idle_seconds,
    )
