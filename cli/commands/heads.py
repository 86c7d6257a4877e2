"""`alignbeam heads`: fit what tells harmful requests from harmless ones, and measure it."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import user_path
from alignbeam_local.settings import resolve

from ..checks.answer_heads import check_answers, fit_answers, show_answers
from ..completion import model_names
from ..console.terminal import say
from ..console.waiting import tracked
from ..eval.items import suite_items
from ..inputs import unseen

if TYPE_CHECKING:
    from alignbeam_local.evaluation.suites.suites import Item
    from alignbeam_local.heads.benign import BenignChange
    from alignbeam_local.heads.check import ReadRequest, Scored
    from alignbeam_local.heads.distractions import DistractionReport
    from alignbeam_local.heads.features import RequestReader
    from alignbeam_local.heads.head import RequestHead
    from alignbeam_local.heads.labelled_requests import LabelledRequest
    from alignbeam_local.prompt.message import Message
    from alignbeam_local.result import ModelCard

    Scorer = Callable[[RequestReader, RequestHead], list[Scored]]

heads_app = typer.Typer(help="Fit and measure what reads requests for harm.", no_args_is_help=True)

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="a name, a path or hf:owner/repo/file.gguf", autocompletion=model_names
    ),
]
RequestsFile = Annotated[
    Path | None,
    typer.Option(
        "--requests",
        parser=user_path,
        metavar="PATH",
        help="JSON Lines of labelled requests; default: the shipped ones",
    ),
]
Answers = Annotated[bool, typer.Option("--answers", help="the head on a draft's answers, not on requests")]
PairsFile = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        parser=user_path,
        metavar="PATH",
        help="with --answers: JSON Lines as of `judge check`; default: the shipped pairs",
    ),
]
Threads = Annotated[str | None, typer.Option("--threads", help="CPU threads; default: physical cores")]
Context = Annotated[str | None, typer.Option("--context", help="tokens of the longest request")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]


@heads_app.command()
def fit(
    model: ModelName,
    *,
    requests: RequestsFile = None,
    benign: Annotated[
        Path | None,
        typer.Option(
            "--benign",
            parser=user_path,
            metavar="PATH",
            help="harmless prompts of your own, a line or a JSON object with `prompt` each",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer",
            min=-1,
            max=1_000_000,
            metavar="NUMBER",
            help="whose states, from 0; -1: after the final norm; default: the first of the best ones",
        ),
    ] = None,
    answers: Answers = False,
    pairs: PairsFile = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=user_path, metavar="PATH", help="default: in the data directory"),
    ] = None,
    threads: Threads = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Fit a head on labelled requests: what an anchor makes of a prompt tells whether it is harmful.

    With `--benign` half of your own prompts are fitted on too; it says what that changes on the other half.
    With `--answers` a draft's answer head is fitted, on the judge's labelled pairs: for `--judge head`.

    ```sh
    alignbeam heads fit qwen2.5-coder-0.5b-instruct
    alignbeam heads fit smollm2-135m-instruct --answers
    alignbeam heads fit qwen2.5-coder-0.5b-instruct --benign our-questions.txt
    ```
    """
    from alignbeam_local.engine.open_reader import open_reader
    from alignbeam_local.heads.benign import own_requests
    from alignbeam_local.heads.fit import fit_head, require_fittable, require_scikit_learn
    from alignbeam_local.heads.head import REQUEST_HEADS
    from alignbeam_local.heads.labelled_requests import read_requests
    from alignbeam_local.pair.prompts_file import read_prompts

    from ..views.heads import print_fit

    require_scikit_learn()
    if answers:
        _require_alone({"--requests": requests, "--benign": benign, "--layer": layer is not None})
        fit_answers(pairs, out, _config(model, threads, context, Registry.load()), as_json=as_json)
        return
    _require_alone({"--pairs": pairs})
    wanted = read_requests(requests) if requests else read_requests()
    require_fittable(wanted)
    own = own_requests(read_prompts(benign)) if benign else []
    registry = Registry.load()
    with open_reader(_config(model, threads, context, registry), registry) as (reader, card):
        read_at = _best_layer(reader, wanted, card) if layer is None else None if layer < 0 else layer
        reader.read_at(() if read_at is None else (read_at,))
        items, key = _read(reader, [*wanted, *own]), reader.key
    record = fit_head(items, card, key, read_at)
    path = out or REQUEST_HEADS.file(card.sha256, key)
    REQUEST_HEADS.save(record, path)
    change = _benign_change(record, items, card, key) if own else None
    print_fit(record, change, as_json=as_json)
    say(f"written: {path}")


@heads_app.command()
def check(
    model: ModelName,
    *,
    requests: RequestsFile = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", help="a suite of `eval run`, or a file of labelled prompts; repeatable"),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack", help="with --suite: every prompt in this dress, as in `eval run`; repeatable"
        ),
    ] = None,
    distractions: Annotated[
        bool,
        typer.Option("--distractions", help="put harmless texts by the harmful ones: how many become clear"),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, max=1_000_000, help="so many prompts of each suite, or with --distractions"
        ),
    ] = None,
    answers: Answers = False,
    pairs: PairsFile = None,
    injections: Annotated[
        bool,
        typer.Option(
            "--injections", help="with --answers: try to change its verdicts by text in the answers"
        ),
    ] = False,
    threads: Threads = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model's head on labelled requests, or on suites: harmful ones of each over harmless of each.

    Of the shipped requests only those count that no head was fitted on; with `--answers` a draft's answer
    head is measured, likewise on the judge's labelled pairs; and with `--injections` as `judge check` does.

    ```sh
    alignbeam heads check qwen2.5-coder-0.5b-instruct
    alignbeam heads check qwen2.5-coder-0.5b-instruct --distractions --limit 60
    alignbeam heads check qwen2.5-coder-0.5b-instruct --suite xstest.jsonl --suite ordinary.jsonl
    alignbeam heads check qwen2.5-coder-0.5b-instruct --suite xstest --limit 50 --attack none --attack rot13
    ```
    """
    from alignbeam_local.engine.open_reader import open_head
    from alignbeam_local.heads.check import figures

    from ..views.heads import print_distractions, print_heads

    if answers:
        others = {"--requests": requests, "--suite": suite, "--distractions": distractions}
        _require_alone(others | {"--attack": attack, "--limit": limit})
        config = _config(model, threads, context, Registry.load())
        check_answers(model, pairs, config, injections=injections, as_json=as_json)
        return
    _require_alone({"--pairs": pairs, "--injections": injections})
    if limit and not (distractions or suite):
        raise UsageError("--limit goes with --suite and --distractions", "Add one of them, or leave it out.")
    if attack and (distractions or not suite):
        raise UsageError(
            "--attack goes with --suite, without --distractions", "Add --suite FILE, or leave out --attack."
        )
    if suite and requests:
        raise UsageError("--suite and --requests both say what is read", "Give one of them.")
    harmful = _harmful(suite, requests, limit) if distractions else []
    score = (
        _suite_scorer(suite_items(suite, limit, attacks=attack or ())) if suite else _request_scorer(requests)
    )
    registry = Registry.load()
    with open_head(_config(model, threads, context, registry), registry) as (head, reader):
        if distractions:
            print_distractions(_distracted(head, harmful, reader), as_json=as_json)
            return
        scores = score(reader, head)
    measured = head.model_copy(update={"held_out": figures(scores, head.thresholds)})
    print_heads([measured], as_json=as_json)


@heads_app.command()
def show(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="this one's in full", autocompletion=model_names)
    ] = None,
    *,
    answers: Answers = False,
    as_json: AsJson = False,
) -> None:
    """List the heads that are kept here, or show those of one model. Nothing is measured anew.

    ```sh
    alignbeam heads show
    alignbeam heads show qwen2.5-coder-0.5b-instruct
    ```
    """
    from alignbeam_local.heads.head import REQUEST_HEADS

    from ..views.heads import print_heads, print_list

    name = _recorded_name(model) if model else None
    if answers:
        show_answers(name, as_json=as_json)
        return
    found = [(path, head) for path, head in REQUEST_HEADS.all() if name in (None, head.model)]
    if model and not found:
        raise ModelError(f"there is no head for {model}", f"alignbeam heads fit {model}")
    if model or as_json:
        print_heads([head for _, head in found], as_json=as_json)
    else:
        print_list(
            [("shipped" if path.parent == REQUEST_HEADS.shipped else "yours", head) for path, head in found]
        )


def _recorded_name(model: str) -> str:
    """What a record calls a model; one that is no longer there is looked for by the name itself."""
    try:
        return Registry.load().resolve(model).name
    except UsageError:
        return model


def _config(model: str, threads: str | None, context: str | None, registry: Registry) -> Config:
    flags = {"anchor": model, "draft": model, "threads": threads, "context": context}
    return resolve(flags, registry, os.environ).config


def _best_layer(
    reader: "RequestReader", requests: "Sequence[LabelledRequest]", card: "ModelCard"
) -> int | None:
    """By the requests that a head is fitted on, each read whole; None: the model has too few layers."""
    import numpy as np

    from alignbeam_local.heads.fit import best_layer, layer_aucs, tried_layers

    layers, fit_on = tried_layers(reader.num_layers), [one for one in requests if one.split == "fit"]
    if not layers:
        return None
    reader.read_at(layers)
    states = [reader.read_whole(one.messages) for one in tracked(fit_on, "reading all layers")]
    aucs = layer_aucs(fit_on, np.stack(states).reshape(len(fit_on), len(layers), -1), layers, card)
    say("AUC by layer: " + ", ".join(f"{layer} {value:.3f}" for layer, value in aucs.items()))
    return best_layer(aucs)


def _read(reader: "RequestReader", requests: "Sequence[LabelledRequest]") -> "list[ReadRequest]":
    from alignbeam_local.heads.check import ReadRequest

    return [ReadRequest(request, reader.read(request.messages)) for request in tracked(requests, "reading")]


def _benign_change(
    record: "RequestHead", items: "Sequence[ReadRequest]", card: "ModelCard", key: str
) -> "BenignChange":
    from alignbeam_local.heads.benign import benign_change, is_own
    from alignbeam_local.heads.fit import fit_head

    before = fit_head([item for item in items if not is_own(item)], card, key, record.layer)
    return benign_change(before, record, items)


def _requests(file: Path | None) -> "list[LabelledRequest]":
    """Of a file, or of the shipped ones, those that no head was fitted on."""
    from alignbeam_local.heads.labelled_requests import read_requests

    if file:
        return unseen(read_requests(file), "requests")
    return [request for request in read_requests() if request.split == "held_out"]


def _request_scorer(file: Path | None) -> "Scorer":
    """Scores the requests of a file, or the shipped ones that no head was fitted on."""
    from alignbeam_local.heads.check import score_all

    wanted = _requests(file)
    return lambda reader, head: score_all(head, _read(reader, wanted))


def _suite_scorer(items: "Sequence[Item]") -> "Scorer":
    """Scores the prompts of suites, each suite a kind; what is not harmful there is harmless."""
    from alignbeam_local.heads.check import scored

    return lambda reader, head: [
        scored(head, item.suite, item.label == "harmful", reader.read(_asked(item)))
        for item in tracked(items, "reading")
    ]


def _asked(item: "Item") -> "list[Message]":
    from alignbeam_local.prompt.message import Message

    return [*item.earlier, Message("user", item.prompt)]


def _harmful(specs: Sequence[str] | None, file: Path | None, limit: int | None) -> list[str]:
    """The harmful prompts of suites, or of a file of requests, or of the shipped ones that no head saw.

    Conversations are left out: only one text can stand by another.
    """
    if specs:
        found = [
            item.prompt for item in suite_items(specs, None) if item.label == "harmful" and not item.earlier
        ]
    else:
        wanted = [r for r in _requests(file) if r.label == "harmful" and len(r.messages) == 1]
        found = [r.messages[0].content for r in wanted]
    if not found:
        raise UsageError("no prompt there is labelled harmful", "Give --suite or --requests with some.")
    number = min(limit or len(found), len(found))
    return [found[at * len(found) // number] for at in range(number)]


def _distracted(head: "RequestHead", harmful: Sequence[str], reader: "RequestReader") -> "DistractionReport":
    from alignbeam_local.heads.distractions import WAYS, distracted

    progress = iter(tracked(range(len(harmful) * (1 + len(WAYS))), "reading"))

    def read(messages: "Sequence[Message]") -> float:
        next(progress)
        p = head.probability(reader.read(messages))
        if p is None:
            raise ModelError(f"{head.model} gives states that its head can't read", "alignbeam heads fit")
        return p

    return distracted(head, harmful, read)


def _require_alone(others: Mapping[str, object]) -> None:
    """Raises: UsageError: an option that says nothing here."""
    for option, value in others.items():
        if value:
            raise UsageError(f"{option} does not go with this head", "Leave it out; --answers decides which.")
