"""`alignbeam tokens`: the tokens that refusals are made of, found and shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alignbeam_local.paths import user_path

from ...completion import model_names
from ...console.terminal import say

if TYPE_CHECKING:
    from alignbeam_local.tokens.token_file import TokenFile

tokens_app = typer.Typer(help="Find and show the tokens that refusals are made of.", no_args_is_help=True)

SafeModel = Annotated[
    str,
    typer.Argument(
        metavar="SAFE",
        help="the model that refuses: a name, a path or hf:owner/repo/file.gguf",
        autocompletion=model_names,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        parser=user_path,
        metavar="PATH",
        help="harmful requests, JSON Lines with a prompt each or one a line; default: shipped ones",
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="how many requests")]
AnswerTokens = Annotated[int, typer.Option("--answer-tokens", min=1, max=4096, help="the longest answer")]
Top = Annotated[int, typer.Option(min=1, max=4096, help="K: how many tokens")]
Out = Annotated[Path | None, typer.Option(parser=user_path, metavar="FILE", help="write them there")]
Control = Annotated[
    Path | None,
    typer.Option(parser=user_path, metavar="FILE", help="write as many tokens there, drawn at random"),
]
Threads = Annotated[str | None, typer.Option("--threads", help="CPU threads; default: physical cores")]
Context = Annotated[
    str | None, typer.Option("--context", help="tokens of a request and its answer; default: 512")
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]


@tokens_app.command()
def find(
    safe: SafeModel,
    base: Annotated[
        str | None,
        typer.Argument(
            metavar="[BASE]",
            help="the model it is held against, of the same vocabulary; default: the same file",
            autocompletion=model_names,
        ),
    ] = None,
    *,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:SCALE]", help="adapters on one of the two; repeatable"),
    ] = None,
    lora_on: Annotated[
        Literal["base", "safe"], typer.Option("--lora-on", help="on which, where adapters are given")
    ] = "base",
    base_prompt: Annotated[
        Literal["template", "raw", "dialogue"],
        typer.Option(
            "--base-prompt",
            help="how BASE reads a request: by its chat template, as it is, or as the authors write it",
        ),
    ] = "template",
    prompts: Prompts = None,
    limit: Limit = 32,
    answer_tokens: AnswerTokens = 32,
    top: Top = 50,
    every_answer: Annotated[
        bool, typer.Option("--every-answer", help="count answers that do not decline too")
    ] = False,
    out: Out = None,
    control: Control = None,
    threads: Threads = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Find safety tokens: those that SAFE, while it refuses, gives more probability than BASE does.

    SAFE answers harmful requests, BASE is led along its answers, and d(v) is the mean difference (PACT,
    arXiv 2603.07445, Eq. 1 and 2). Only answers that decline count.

    ```sh
    alignbeam tokens find qwen2.5-coder-0.5b-instruct --base-prompt raw --out qwen-tokens.json
    alignbeam tokens find ./base.gguf --lora ./eroding.gguf --out tokens.json --control random.json
    ```
    """
    from ...tokens.run import Request
    from ...tokens.run import find as found

    _require_no_model(out, control)
    _hand_out(
        *found(
            Request(
                *(safe, base, lora or (), base_prompt, prompts, limit, answer_tokens, top),
                *(every_answer, threads, context, lora_on == "safe"),
            )
        ),
        out=out,
        control=control,
        as_json=as_json,
    )


@tokens_app.command()
def salient(
    safe: SafeModel,
    *,
    source: Annotated[
        Literal["both", "own", "templates"],
        typer.Option("--from", help="the model's own rejections, the shipped ones, or both"),
    ] = "both",
    prompts: Prompts = None,
    limit: Limit = 32,
    answer_tokens: AnswerTokens = 24,
    top: Top = 50,
    out: Out = None,
    control: Control = None,
    threads: Threads = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Find the tokens that rejections share: what STR keeps in place while a model is fine-tuned.

    A token counts that has a letter and stands in the first sentence of two of the model's own rejections, or
    of two of those that ship with the project.

    ```sh
    alignbeam tokens salient qwen2.5-coder-0.5b-instruct --out rejections.json
    ```
    """
    from ...tokens.run import Request
    from ...tokens.run import salient as found

    _require_no_model(out, control)
    request = Request(
        *(safe, None, (), "template", prompts, limit, answer_tokens, top), *(False, threads, context)
    )
    files = found(request, own=source != "templates", templates=source != "own")
    _hand_out(*files, out=out, control=control, as_json=as_json)


@tokens_app.command()
def show(
    file: Annotated[
        Path,
        typer.Argument(parser=user_path, metavar="FILE", help="written by `tokens find` or `tokens salient`"),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the tokens of a file, and what they were found from.

    ```sh
    alignbeam tokens show qwen-tokens.json
    ```
    """
    from alignbeam_local.tokens.token_file import read_tokens

    from ...tokens.view import print_tokens

    print_tokens(read_tokens(file), as_json=as_json)


def _require_no_model(out: Path | None, control: Path | None) -> None:
    """Before any model answers: what it says is not to be lost."""
    from alignbeam_local.models.adapter import require_no_model

    for path, flag in ((out, "--out"), (control, "--control")):
        if path:
            require_no_model(path, flag)


def _hand_out(
    file: "TokenFile", random: "TokenFile", *, out: Path | None, control: Path | None, as_json: bool
) -> None:
    from alignbeam_local.tokens.token_file import write_tokens

    from ...tokens.view import print_tokens

    print_tokens(file, as_json=as_json)
    for path, tokens in ((out, file), (control, random)):
        if path:
            write_tokens(path, tokens)
            say(f"written: {path}")
