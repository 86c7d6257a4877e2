"""`alignbeam train`: fine-tune an adapter that keeps its refusals, and write adapters for llama.cpp."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.knobs.sampling import MOST_SEED
from alignbeam_local.paths import user_path
from alignbeam_local.training.losses import PACT_FORMS, Variant
from alignbeam_local.training.settings import TARGETS, Method, StrOn, TrainingSettings

from ...completion import model_names
from ...console.terminal import say
from ...eval.items import suite_items
from ...train.settings import MethodFlags, settings_of

if TYPE_CHECKING:
    from alignbeam_local.evaluation.suites.suites import Item

train_app = typer.Typer(invoke_without_command=True)

_PAPER, _CODE = PACT_FORMS["paper"], PACT_FORMS["code"]
_SHIPPED = "default: rejections that ship with this program"


BaseName = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="the model: a name, a path or hf:owner/repo/file.gguf",
        autocompletion=model_names,
    ),
]


def _file(flag: str, text: str, metavar: str = "FILE") -> typer.models.OptionInfo:
    option = typer.Option(flag, parser=user_path, metavar=metavar, help=text)
    assert isinstance(option, typer.models.OptionInfo)
    return option


@train_app.callback()
def train(
    context_: typer.Context,
    *,
    method: Annotated[
        Method | None,
        typer.Option(
            "--method", help="sft: the task alone; str, pact: refusals kept; constrained: a baseline"
        ),
    ] = None,
    base: BaseName = None,
    data: Annotated[Path | None, _file("--data", "conversations that end with an answer, JSON Lines")] = None,
    out: Annotated[
        Path | None, _file("--out", "the run's directory: a new one, or one to go on with", "DIR")
    ] = None,
    held_out: Annotated[
        Path | None, _file("--held-out", "conversations that are only measured, JSON Lines")
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH[:LABEL]",
            help="prompts that are asked at every checkpoint, as suites of eval run; repeatable",
        ),
    ] = None,
    evaluate_limit: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="at most this many prompts of each suite")
    ] = None,
    weights: Annotated[
        Path | None,
        _file("--weights", "the base's Hugging Face folder; default: its GGUF file, dequantised", "DIR"),
    ] = None,
    layers: Annotated[
        int, typer.Option(min=0, max=10_000, help="how many of the last layers are trained; 0: all")
    ] = TrainingSettings.layers,
    targets: Annotated[
        str, typer.Option(metavar="NAMES", help=f"matrices of a layer: some of {','.join(TARGETS)}")
    ] = ",".join(TrainingSettings.targets),
    rank: Annotated[int, typer.Option(min=1, max=1024, help="LoRA's")] = TrainingSettings.rank,
    alpha: Annotated[
        float, typer.Option(min=1e-3, max=1e6, help="LoRA's: an update is alpha / rank times B A")
    ] = TrainingSettings.alpha,
    epochs: Annotated[
        int, typer.Option(min=1, max=10_000, help="how often each sample is seen")
    ] = TrainingSettings.epochs,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="samples a step")] = TrainingSettings.batch,
    learning_rate: Annotated[
        float, typer.Option(min=1e-9, max=1.0, help="AdamW's")
    ] = TrainingSettings.learning_rate,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, help="of the adapter's start and of the samples' order")
    ] = TrainingSettings.seed,
    context: Annotated[
        int, typer.Option(min=128, max=1 << 20, help="tokens of the longest sample")
    ] = TrainingSettings.context,
    save_every: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="steps from checkpoint to checkpoint")
    ] = TrainingSettings.save_every,
    keep_adapters: Annotated[
        bool,
        typer.Option("--keep-adapters", help="keep the adapter of every checkpoint, as step-N.gguf in --out"),
    ] = False,
    max_kl: Annotated[
        float,
        typer.Option(min=1e-6, max=100.0, help="how far transformers may be from llama.cpp, in nats"),
    ] = TrainingSettings.max_kl,
    weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1e6,
            help=f"λ of str (default {TrainingSettings.str_weight:g}) or of pact "
            f"(default {_PAPER.kl_weight:g}, code's {_CODE.kl_weight:g})",
        ),
    ] = None,
    tokens: Annotated[
        Path | None, _file("--tokens", "safety tokens with their d(v), JSON; pact needs them, str may")
    ] = None,
    rejections: Annotated[
        Path | None, _file("--rejections", f"str: how the model declines, one a line; {_SHIPPED}")
    ] = None,
    str_on: Annotated[
        StrOn | None, typer.Option(help=f"str: what is compared (default {TrainingSettings.str_on})")
    ] = None,
    str_first: Annotated[
        int | None, typer.Option(min=1, max=1 << 20, help="str: in the first so many positions only")
    ] = None,
    variant: Annotated[
        Variant | None,
        typer.Option(help=f"pact: as in the paper or as in its code (default {TrainingSettings.variant})"),
    ] = None,
    mass_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1e6, help=f"pact: μ of the mass term, ours (default {_PAPER.mass_weight:g})"
        ),
    ] = None,
    gated_positions: Annotated[
        int | None,
        typer.Option(
            min=0, max=1 << 20, help=f"pact: N, where the gate is whole (default {_PAPER.gated_positions})"
        ),
    ] = None,
    decay: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e6, help=f"pact: τ, in positions (default {_PAPER.decay:g})"),
    ] = None,
    threads: Annotated[str | None, typer.Option("--threads", help="default: physical cores")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object at the end")] = False,
) -> None:
    """Fine-tune an adapter on your rows so that the model keeps its refusals, and write it for llama.cpp.

    It needs `pip install 'alignbeam-local[train]'`. Stopped anywhere, the same command goes on.

    ```sh
    alignbeam train --method str --base qwen2.5-coder-0.5b-instruct --data rows.jsonl --out first
    ```
    """
    if context_.invoked_subcommand:
        if any((method, base, data, out)):
            raise UsageError("flags of a training stand before a sub-command", "alignbeam train --help")
        return
    if method is None or base is None or data is None or out is None:
        raise _needed("train", method=method, base=base, data=data, out=out)
    flags = MethodFlags(
        *(weight, tokens, rejections, str_on, str_first, variant),
        *(mass_weight, gated_positions, decay),
    )
    settings = settings_of(
        method,
        targets,
        flags,
        layers=layers,
        rank=rank,
        alpha=alpha,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        context=context,
        save_every=save_every,
        max_kl=max_kl,
    )
    files = _Files(data, out, held_out, weights, tokens, rejections)
    asked = suite_items(evaluate or (), evaluate_limit)
    _run(base, threads, settings, files, asked, keep_adapters=keep_adapters, as_json=as_json)


class _Files:
    """What was named."""

    def __init__(self, data: Path, out: Path, *others: Path | None) -> None:
        self.data, self.out = data, out
        self.held_out, self.weights, self.tokens, self.rejections = others


def _needed(command: str, **flags: object) -> UsageError:
    missing = " and ".join(f"--{name}" for name, value in flags.items() if value is None)
    return UsageError(f"needed: {missing}", f"alignbeam {command} --help")


def _run(
    base: str,
    threads: str | None,
    settings: TrainingSettings,
    files: _Files,
    asked: "Sequence[Item]",
    *,
    keep_adapters: bool,
    as_json: bool,
) -> None:
    from alignbeam_local.llama.library import default_threads
    from alignbeam_local.models.registry import Registry
    from alignbeam_local.settings import resolve
    from alignbeam_local.training.extra import load_torch, require_extra
    from alignbeam_local.training.request import TrainingRequest

    require_extra()
    registry = Registry.load()
    wanted = {"draft": base, "lora": "none", "threads": threads, "context": str(settings.context)}
    config = resolve(wanted, registry, os.environ).config
    num_threads = config.threads or default_threads()
    load_torch(num_threads)
    from alignbeam_local.training.run import train as events

    from ...train.view import show

    request = TrainingRequest(
        files.data,
        files.out,
        settings,
        num_threads,
        held_out=files.held_out,
        weights=files.weights,
        tokens=files.tokens,
        rejections=files.rejections,
        asked=asked,
        keep_adapters=keep_adapters,
    )
    show(events(request, config, registry), base, as_json=as_json)


@train_app.command()
def export(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=user_path, metavar="FOLDER", help="PEFT's, with adapter_config.json and safetensors"
        ),
    ],
    *,
    base: BaseName = None,
    out: Annotated[Path | None, _file("--out", "the adapter's file, which ends in .gguf")] = None,
) -> None:
    """Write a LoRA adapter of PEFT's as a GGUF file for llama.cpp, for one base model.

    For llama, qwen2, qwen3 and gemma3. DoRA, biases and saved modules are refused by name, and a base that
    the folder was not trained on, as far as it says which that is.

    ```sh
    alignbeam train export ./my-lora --base qwen2.5-coder-0.5b-instruct --out my-lora.gguf
    ```
    """
    from alignbeam_local.models.adapter import require_no_model
    from alignbeam_local.models.hashes import model_sha256
    from alignbeam_local.models.registry import Registry
    from alignbeam_local.training.adapter.adapter_gguf import BaseModel, write_adapter
    from alignbeam_local.training.adapter.peft_folder import read_peft
    from alignbeam_local.training.adapter.trained_on import require_trained_on
    from alignbeam_local.training.run_files import told_if_full

    if base is None or out is None:
        raise _needed("train export", base=base, out=out)
    if out.suffix.lower() != ".gguf":
        raise UsageError(f"--out {out} does not end in .gguf", "llama.cpp's files do.")
    require_no_model(out, "--out")
    registry = Registry.load()
    file, adapter = registry.require(base), read_peft(folder)
    model = BaseModel(file.path, model_sha256(file.path))
    if unknown := require_trained_on(folder, model, file, registry):
        say(f"note: {unknown}")
    with told_if_full(out):
        write_adapter(out, adapter, model, folder.absolute().name)
    matrices = f"{len(adapter.pairs)} matrices of rank {adapter.rank}, alpha {adapter.alpha:g}"
    say(f"written: {out} ({matrices})")
