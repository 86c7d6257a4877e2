"""`alignbeam filter`: many prompts from stdin, one answer each, in order."""

import sys
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError

from .. import playing, session
from ..console.terminal import is_terminal, say
from ..crew import RayFlag, WorkersFlag, refuse_workers
from ..filter.parallel import ParallelRun
from ..filter.run import FilterRun, Form
from ..filter.template import read_template
from ..inputs import Arriving, is_ready, records
from ..kept import opened_log
from ..options import Options, TemplateFlag, with_options
from ..views.answer_view import silent_view

_LONGEST_TIMEOUT = 1e6


@with_options
def filter_prompts(
    null: Annotated[
        bool, typer.Option("--null", "-0", metavar="", help="NUL ends a prompt and an answer")
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", metavar="", help="one JSON object a line, in and out")
    ] = False,
    template: TemplateFlag = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="an answer that takes longer fails"),
    ] = None,
    fail_on_refusal: Annotated[
        bool,
        typer.Option("--fail-on-refusal", metavar="", help="exit with 4 if an answer is refused or blocked"),
    ] = False,
    *,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    log: Annotated[
        bool,
        typer.Option("--log", metavar="", help="keep prompts and answers, as one conversation of the log"),
    ] = False,
    options: Options,
) -> None:
    """Answer many prompts: a line of stdin each, a line of stdout each, in order, as soon as it is ready.

    An answer's newlines become spaces; `--null` and `--jsonl` keep them. A blank line stays blank.
    A line that can't be answered gives an empty line, and a message on stderr. The run goes on, and ends
    with exit code 1.

    With `--jsonl` an object has `prompt` (or `messages`), any knob, and any other field. It comes back with
    the fields of the result, or as `{"id", "line", "error"}`; a field that is called as one of the result's
    (such as `text` or `models`) gives way to it, with a warning. Blank lines are left out there.

    With `--parallel P` up to P prompts are answered at once; one never waits for prompts that are still to
    come. A batch moves probabilities a little: where two tokens are nearly as likely, or a draw falls between
    two, an answer goes on otherwise than by itself. A `--timeout` is then looked at between two decodes, and
    the timings of an answer hold what others did meanwhile.

    With `--ray` workers of a cluster answer, one prompt each at a time; each prompt as if it were the first.

    Nothing is kept of prompts and answers, unless `--log` is given.

    ```sh
    printf 'A noun?\\nA verb?\\n' | alignbeam filter --max-tokens 60
    alignbeam filter --template 'Summarise: {prompt}' < in.txt > out.txt
    alignbeam filter --jsonl --timeout 60 < rows.jsonl > answers.jsonl
    alignbeam filter --template summary --role editor < in.txt > out.txt
    alignbeam filter --jsonl --template @letter.txt < rows.jsonl
    alignbeam filter --parallel 4 < in.txt > out.txt
    alignbeam filter --ray 10.0.0.1:6379 --threads 4 < in.txt > out.txt
    ```
    """
    asked = None if template is None else read_template(template, any_field=jsonl)
    form = Form(null, jsonl, asked, _checked(timeout))
    refuse_workers(ray, workers)
    prepared = session.prepare(options)
    if ray:
        from ..filter.on_ray import filter_on_ray

        with opened_log(is_wanted=log) as kept:
            filter_on_ray(ray, workers, prepared, form, kept).finish(fail_on_refusal=fail_on_refusal)
        return
    with opened_log(is_wanted=log) as kept, prepared.open() as engine:
        said: set[str] = set()
        playing.play(engine, engine.load(), silent_view(options, said))
        if is_terminal(sys.stdin):
            say("Prompts, one a line; Ctrl-D ends.")
        elif is_terminal(sys.stderr) and not options.quiet and not is_ready(sys.stdin.buffer):
            say("reading prompts from stdin")
        run = FilterRun(engine, prepared.settings, options, form, said, kept=kept)
        if prepared.settings.config.parallel > 1:
            source = Arriving(sys.stdin.buffer, form.separator)
            ParallelRun(run, engine, form.timeout).answer_all(source)
        else:
            for number, raw in enumerate(records(sys.stdin.buffer, form.separator), 1):
                run.answer(number, raw)
    run.finish(fail_on_refusal=fail_on_refusal)


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and not 0 < timeout <= _LONGEST_TIMEOUT:
        raise UsageError(
            f"--timeout: {timeout:g} seconds", f"Give more than 0, at most {_LONGEST_TIMEOUT:g}."
        )
    return timeout
