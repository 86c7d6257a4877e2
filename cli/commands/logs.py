"""`alignbeam logs`: the conversations that were kept."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from alignbeam_local.conversation.claims import Claims, claimed_by
from alignbeam_local.conversation.export import (
    EXPORT_ENDINGS,
    ExportFormat,
    as_object,
    exported,
    markdown,
    read,
)
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.conversation.stored import StoredConversation
from alignbeam_local.errors import UsageError
from alignbeam_local.paths import user_path, write_named
from alignbeam_local.result_json import json_line

from ..completion import conversation_names
from ..console.asking import confirm_deletion
from ..console.terminal import for_stream, say
from ..endings import by_ending
from ..line.input import typed_lines
from ..views.logs import print_conversations, print_found

logs_app = typer.Typer(
    no_args_is_help=True,
    help="""List, show, search, export and delete the conversations that were kept.

    `chat` keeps them, unless with `--no-log`; `ask` and `filter` only with `--log`.
    They are in one SQLite file on this machine, readable by you alone.

    A conversation is named by its name, its id or the beginning of its id.
    """,
)

_MOST = 1_000_000_000  # SQLite counts to 2**63
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


Named = Annotated[
    str | None,
    typer.Argument(
        metavar="CONVERSATION", help="the last one, if none is named", autocompletion=conversation_names
    ),
]
AllNamed = Annotated[
    list[str] | None, typer.Argument(metavar="CONVERSATION", autocompletion=conversation_names)
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON", metavar="")]
Limit = Annotated[
    int, typer.Option("--limit", "-n", min=0, max=_MOST, metavar="NUMBER", help="at most this many; 0 = all")
]


@logs_app.command("list")
def list_conversations(limit: Limit = 20, as_json: AsJson = False) -> None:
    """The conversations, the last used first: a table on a terminal, tab-separated in a pipe.

    ```sh
    alignbeam logs list --limit 0 | cut -f 1
    ```
    """
    with ConversationLog() as log:
        conversations = log.conversations(limit or -1)
    if as_json:
        _print(json_line([one._asdict() for one in conversations]))
    else:
        print_conversations(conversations)


@logs_app.command()
def show(
    conversation: Named = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            max=_MOST,
            metavar="NUMBER",
            help="only the last turns, this many; 0 = all",
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """One conversation as Markdown.

    ```sh
    alignbeam logs show
    alignbeam logs show taxes | less
    ```
    """
    with ConversationLog() as log:
        one = log.find(conversation) if conversation else _last(log)
        (whole,) = read(log, [one])
    wanted = whole._replace(exchanges=whole.exchanges[-limit:])
    _print(json_line(as_object(wanted)) if as_json else markdown(wanted))


@logs_app.command()
def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORD", help="words to find: all of them, upper or lower case")
    ],
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Find words in questions and answers; the newest come first.

    ```sh
    alignbeam logs search compound interest
    ```
    """
    with ConversationLog() as log:
        found = log.search(" ".join(words), limit or -1)
    if as_json:
        _print(json_line([one._asdict() for one in found]))
    else:
        print_found(found, words[0])


@logs_app.command()
def export(
    conversations: AllNamed = None,
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", "-f", help="what is written; default: by the ending of --out, else md"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=user_path,
            metavar="PATH",
            help="a file instead of stdout, readable by you alone",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite that file", metavar="")] = False,
) -> None:
    """Write the named conversations, or all of them, the oldest first.

    A line of `jsonl` is one question with its answer, shaped as `filter --jsonl` writes it.

    ```sh
    alignbeam logs export taxes > taxes.md
    alignbeam logs export --out all.jsonl
    ```
    """
    written = form or _form_of(out)
    if out and out.exists() and not force:
        raise UsageError(f"{out} is there already", "--force overwrites it.")
    with ConversationLog() as log:
        chosen = [log.find(word) for word in conversations or []] or log.conversations()[::-1]
        lines = exported(read(log, chosen), written)
        if out:
            write_named(out, "".join(f"{line}\n" for line in lines))
            return
        for line in lines:
            _print(line)


@logs_app.command()
def path() -> None:
    """Where the conversations are: an SQLite file.

    ```sh
    sqlite3 "$(alignbeam logs path)" "SELECT question FROM exchange"
    ```
    """
    print(default_path())


@logs_app.command()
def prune(
    conversations: AllNamed = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="not used for 12h, 30d, 8w...")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", min=0, max=_MOST, metavar="NUMBER", help="never the ones used last, this many"
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="all of them", metavar="")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask", metavar="")] = False,
) -> None:
    """Delete conversations for good, with the model states that were kept for them.

    `--all` deletes the lines typed in chats too, which the line editor keeps for its history.
    It asks first; where nobody can answer, it wants `--yes`. What a chat has open stays.

    ```sh
    alignbeam logs prune taxes
    alignbeam logs prune --older-than 30d --keep 10 --yes
    alignbeam logs prune --all
    ```
    """
    age = None if older_than is None else _age(older_than)
    by_rest = age is not None or keep is not None
    if (everything or by_rest) == bool(conversations) or (everything and by_rest):
        raise UsageError(
            "say what to delete", "Either name conversations, or give --older-than, --keep or --all."
        )
    with ConversationLog() as log:
        if conversations:
            chosen = list(dict.fromkeys(map(log.find, conversations)))
        else:
            chosen = outdated(log.conversations(), age, keep or 0, datetime.now(UTC))
        chosen = _left_alone(chosen, Claims(log.claims_dir), are_named=bool(conversations))
        typed = typed_lines() if everything and typed_lines().exists() else None
        if not (chosen or typed):
            say("there is nothing to delete")
            return
        what = _count(len(chosen)) + (" and the lines typed in chats" if typed else "")
        if not yes:
            confirm_deletion(what)
        log.delete([one.id for one in chosen])
        if typed:
            typed.unlink(missing_ok=True)
    say(f"deleted {what}")


def _left_alone(
    chosen: list[StoredConversation], claims: Claims, *, are_named: bool
) -> list[StoredConversation]:
    """Those that no chat has open: it could not go on with what is deleted.

    Raises:
        UsageError: one that was named is open in a chat.
    """
    free = [one for one in chosen if claims.are_free(*claimed_by(one.id, one.name))]
    left = [one.name or one.id for one in chosen if one not in free]
    if left and are_named:
        raise UsageError(f"a chat has {left[0]} open", "Leave that chat (/bye), then delete it.")
    for name in left:
        say(f"note: a chat has {name} open: it stays")
    return free


def outdated(
    conversations: list[StoredConversation], age: timedelta | None, keep: int, now: datetime
) -> list[StoredConversation]:
    """Of conversations, the last used first, those behind the first `keep` that were not used for `age`."""
    return [
        one for one in conversations[keep:] if age is None or now - datetime.fromisoformat(one.updated) > age
    ]


def _form_of(out: Path | None) -> ExportFormat:
    """What is written where nobody named a format. Raises: UsageError: the file's ending is none."""
    return by_ending(out, EXPORT_ENDINGS, "Or give --format.") if out else "md"


def _print(text: str) -> None:
    print(for_stream(text, sys.stdout))


def _last(log: ConversationLog) -> StoredConversation:
    last = log.last()
    if last is None:
        raise UsageError("there are no conversations yet", "`alignbeam chat` begins one.")
    return last


def _age(text: str) -> timedelta:
    if not (match := re.fullmatch(r"(\d{1,6})([mhdw])", text)):
        raise UsageError(f"--older-than: '{text}' is not an age", "Write 90m, 12h, 30d or 8w.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _count(number: int) -> str:
    return "1 conversation" if number == 1 else f"{number} conversations"
