"""`alignbeam plan`: what fits where, how fast and for how much, before anything is bought or fetched."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from alignbeam_local.knobs.values import MOST_TOKENS
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import user_path
from alignbeam_local.result_json import json_line
from alignbeam_local.settings import resolve

from ...console.terminal import for_stream
from ...options import with_knobs

_MOST = 10**9


@with_knobs(
    *("profile", "draft", "anchor", "judge", "beams", "depth", "judge_at", "context", "parallel"),
    *("gpu_layers", "draft_gpu", "anchor_gpu", "judge_gpu", "split_mode"),
    *("flash_attn", "cache_type_k", "cache_type_v"),
)
def plan(
    *,
    knobs: dict[str, str | list[str] | None],
    machine: Annotated[
        str,
        typer.Option(
            "--machine",
            metavar="gpu=24G,ram=64G,cores=16",
            help="one machine: gpu=24G or 24Gx2, ram, cores; and where you know them gpu-bandwidth=1008G,"
            " gpu-tflops=80, ram-bandwidth=40G (bytes a second), network=1.25G, latency-ms=0.3, price=1.5",
        ),
    ],
    count: Annotated[int, typer.Option("--count", min=1, max=100_000, help="how many such machines")] = 1,
    together: Annotated[
        int,
        typer.Option("--together", min=1, max=16, help="how many of them share one set of models, over RPC"),
    ] = 1,
    prompts: Annotated[int, typer.Option("--prompts", min=1, max=_MOST, help="how many prompts")] = 1000,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, max=MOST_TOKENS, help="length of a prompt's text")
    ] = 100,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", min=1, max=MOST_TOKENS, help="length of an answer")
    ] = 256,
    per_hour: Annotated[
        int | None,
        typer.Option(
            "--per-hour", min=1, max=_MOST, help="say how many machines so many prompts an hour take"
        ),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            "--measured",
            parser=user_path,
            metavar="BENCH.json",
            help="what `bench --json` printed on such a processor, in place of what is assumed of it",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Predict what fits on which machines, and what answers take there.

    Nothing is loaded. Models are files or names; of one that is not here, and of hf:owner/repo/file.gguf,
    the header alone is read from the hub. Answers run to their full length; times are for K = 1, and for
    K = 3 or as `--beams` says. A prediction is drawn from the bytes that every batch must read and from what
    it multiplies; docs/scale.md says how far it was off where it was measured.

    ```sh
    alignbeam plan --draft ./70b-q4_k_m.gguf --machine gpu=80G,ram=128G,cores=16,gpu-bandwidth=2000G
    alignbeam plan --machine gpu=24G,ram=64G,cores=8,price=0.5 --count 2 --together 2
    alignbeam plan --profile speed --machine ram=16G,cores=2 --measured bench.json --per-hour 10000
    ```
    """
    from alignbeam_local.plan.machines import MachineSpec
    from alignbeam_local.plan.plan import make_plan
    from alignbeam_local.plan.work import Workload

    from ...plan.page import plan_text

    registry, described = Registry.load(), MachineSpec.parse(machine)
    settings = resolve(knobs, registry, os.environ)
    if knobs["parallel"] is None:
        settings = settings.one_at_a_time()
    found = make_plan(
        settings.config,
        registry,
        described,
        Workload(prompts, prompt_tokens, new_tokens),
        count=count,
        together=together,
        per_hour=per_hour,
        measured=measured,
    )
    text = json_line(found.as_json()) if as_json else plan_text(found)
    print(for_stream(text, sys.stdout))
