"""Adapters in llama.cpp: a context computes with them as with merged weights, and no other context does."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine.engine import Engine
from alignbeam_local.engine.loader import Loader
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.evaluation.methods.model_pool import ModelPool
from alignbeam_local.llama.plain import PlainDraft
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.machine import probe
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.models.adapter import require_adapter
from alignbeam_local.models.entry import ModelEntry
from alignbeam_local.models.gguf_reader import read_contents
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.models.registry import Registry
from tests.adapters import ALPHA, RANK, halves, write_adapter
from tests.llama_models import GREEDY, PROMPT, SMOLLM, Opened, assert_close, chat, fresh, opened, write_tiny

__all__ = ["opened"]
ALL = tuple(f"blk.0.attn_{part}" for part in ("q", "k", "v", "output"))
ROOM = ContextSize(2, 256, 512)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    base = write_tiny(folder / "base.gguf", "llama")
    return {
        "base": base,
        "adapter": write_adapter(folder / "mine.gguf", halves(ALL)),
        "merged": merged(base, folder / "merged.gguf"),
    }


def merged(base: Path, path: Path) -> Path:
    """The tiny model with B @ A, scaled, added to its weights."""
    update = halves(ALL)
    path.write_bytes(base.read_bytes())
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if (a := update.get(f"{tensor.name}.lora_a")) is not None:
            tensor.data[:] += ALPHA / RANK * (update[f"{tensor.name}.lora_b"] @ a)
    return path


def row(opened: Opened, files: dict[str, Path], scale: float | None) -> Logits:
    """After the prompt, from a new context with the adapter at this scale; None: without it."""
    base = opened.lm(files["base"], num_sequences=1)  # loads the weights
    adapters = [base.weights.adapter(files["adapter"], "a" * 64, scale)] if scale is not None else []
    lm = opened.lm(files["base"], num_sequences=1, adapters=adapters)
    lm.extend({0: PROMPT})
    return lm.logits(0).copy()


def test_an_adapter_computes_what_merged_weights_do(opened: Opened, files: dict[str, Path]) -> None:
    with_adapter = row(opened, files, 1.0)
    whole = opened.lm(files["merged"], num_sequences=1)
    whole.extend({0: PROMPT})
    assert_close(with_adapter, whole.logits(0).copy())
    assert np.abs(with_adapter - row(opened, files, None)).max() > 1, "it changes something"


def test_scale_0_and_no_adapter_are_the_base_to_the_bit(opened: Opened, files: dict[str, Path]) -> None:
    alone = row(opened, files, None)
    assert (row(opened, files, 0.0) == alone).all()
    row(opened, files, 1.0)
    assert (row(opened, files, None) == alone).all(), "an adapter is a context's, not the weights'"


def test_half_the_scale_is_half_the_alpha(opened: Opened, files: dict[str, Path], tmp_path: Path) -> None:
    half = row(opened, files, 0.5)
    other = write_adapter(tmp_path / "half.gguf", halves(ALL), alpha=ALPHA / 2)
    weights = opened.weights[files["base"]]
    lm = opened.lm(files["base"], num_sequences=1, adapters=[weights.adapter(other, "c" * 64, 1.0)])
    lm.extend({0: PROMPT})
    assert_close(half, lm.logits(0))
    assert np.abs(half - row(opened, files, 1.0)).max() > 0.1


def test_hash_and_scale_are_in_the_key_of_states(opened: Opened, files: dict[str, Path]) -> None:
    plain = opened.lm(files["base"], num_sequences=1)
    keys = [plain.state_key]
    for sha256, scale in (("a" * 64, 1.0), ("a" * 64, 0.5), ("b" * 64, 1.0)):
        adapter = plain.weights.adapter(files["adapter"], sha256, scale)
        keys.append(opened.lm(files["base"], num_sequences=1, adapters=[adapter]).state_key)
    assert len(set(keys)) == 4
    plain.extend({0: PROMPT})
    other = opened.lm(files["base"], num_sequences=1, adapters=[adapter])
    with pytest.raises(ModelError, match="belongs to another model"):
        other.restore(0, plain.save(0))


def test_two_contexts_share_the_weights_one_with_the_adapter(opened: Opened, files: dict[str, Path]) -> None:
    anchor = opened.lm(files["base"], num_sequences=1)
    adapter = anchor.weights.adapter(files["adapter"], "a" * 64, 1.0)
    draft = opened.lm(files["base"], num_sequences=1, adapters=[adapter])
    for lm in (draft, anchor, draft):
        lm.set_tokens({0: PROMPT})
    assert np.abs(draft.logits(0) - anchor.logits(0)).max() > 1
    assert (anchor.logits(0) == fresh(opened, anchor, PROMPT)).all()
    assert draft.weights is anchor.weights
    assert draft.vocabulary is anchor.vocabulary


def test_the_draft_alone_has_its_adapters_too(opened: Opened, files: dict[str, Path]) -> None:
    base = opened.lm(files["base"], num_sequences=1)
    adapter = base.weights.adapter(files["adapter"], "a" * 64, 1.0)
    said = []
    for lm in (base, opened.lm(files["base"], num_sequences=1, adapters=[adapter])):
        plain = PlainDraft(lm, context=256, threads=2)
        said.append(plain.complete(PROMPT, GREEDY, 8).tokens)
        plain.close()
    assert said[0] != said[1]


def test_what_llama_cpp_refuses_is_an_error(tmp_path: Path, files: dict[str, Path]) -> None:
    weights = LlamaWeights(files["base"], use_extra_bufts=False)
    path = write_adapter(tmp_path / "other.gguf", architecture="qwen2")
    with pytest.raises(ModelError, match="could not load the adapter"):
        weights.adapter(path, "a" * 64, 1.0)
    weights.close()


# --- the loader and the probe


def loader(files: dict[str, Path], **knobs: object) -> Loader:
    knobs = {"draft": str(files["base"]), "lora": [f"{files['adapter']}:0.5"], "context": 256, **knobs}
    return Loader(Config.of(knobs), Registry({}, {}, ""), Cancellation())


@pytest.mark.usefixtures("probed_once")
def test_the_loader_puts_adapters_on_the_draft_alone(files: dict[str, Path]) -> None:
    opened = loader(files, anchor=str(files["base"]))
    try:
        found = {role: opened.find(role) for role in ("draft", "anchor")}
        opened.place({role: (file.path, ROOM) for role, file in found.items()})
        list(opened.prepare(*(file.path for file in found.values())))
        draft, anchor = (opened.open(role, file, ROOM) for role, file in found.items())
        (card,) = draft.card.adapters
        assert (card.name, card.path, card.scale) == ("mine", str(files["adapter"]), 0.5)
        assert anchor.card.adapters == ()
        assert draft.card.sha256 == anchor.card.sha256 == anchor.card.weights_sha256
        assert draft.card.weights_sha256 != draft.card.sha256
        assert "lora" in draft.lm.state_key
        assert "lora" not in anchor.lm.state_key
    finally:
        opened.close()


def test_the_probe_tries_an_adapter_once_with_its_model(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    real = probe._run_child

    def counted(*args: object) -> object:
        runs.append(args)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(probe, "_run_child", counted)
    for _ in range(2):
        opened = loader(files)
        list(opened.prepare(opened.find("draft").path))
        opened.close()
    assert len(runs) == 2, "the model by itself, then with its adapter; both are remembered"


def test_an_adapter_that_crashes_llama_cpp_is_named(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(*args: object) -> tuple[int, str, str]:
        return (-11, "", "") if args[4:] and args[4] else (0, "", "")

    monkeypatch.setattr(probe, "_run_child", child)
    opened = loader(files)
    path = opened.find("draft").path
    with pytest.raises(ModelError, match=r"crashes with .*base\.gguf and .*mine\.gguf: SIGSEGV") as caught:
        list(opened.prepare(path))
    assert "--lora none" in caught.value.hint


def test_results_that_are_no_numbers_are_found_by_the_probe(files: dict[str, Path], tmp_path: Path) -> None:
    """The values are numbers, and yet too large to compute with."""
    path = write_adapter(tmp_path / "huge.gguf", halves(ALL, size=1e30))
    opened = loader(files, lora=[str(path)])
    base = opened.find("draft").path
    match = r"base\.gguf and .*huge\.gguf give results that are not numbers"
    with pytest.raises(ModelError, match=match) as caught:
        list(opened.prepare(base))
    assert "training diverged" in caught.value.hint


def test_an_adapter_replaced_while_it_was_in_use(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(files["adapter"].read_bytes())
    opened = loader(files, lora=[str(path)])
    file = opened.find("draft")
    list(opened.prepare(file.path))
    write_adapter(path, halves(ALL, seed=1))
    with pytest.raises(ModelError, match="was replaced while it was in use"):
        opened.open("draft", file, ROOM)
    path.write_bytes(files["adapter"].read_bytes())
    draft = opened.open("draft", opened.find("draft"), ROOM)
    draft.lm.extend({0: PROMPT})
    row = draft.lm.logits(0).copy()
    opened.close()
    again = loader(files, lora=[str(path)])
    fresh_draft = again.open("draft", again.find("draft"), ROOM)
    fresh_draft.lm.extend({0: PROMPT})
    assert (fresh_draft.lm.logits(0) == row).all(), "what was loaded meanwhile is forgotten"
    again.close()


@pytest.mark.usefixtures("probed_once")
def test_of_the_models_of_a_method_the_draft_alone_has_adapters(files: dict[str, Path]) -> None:
    knobs = {"draft": str(files["base"]), "lora": [str(files["adapter"])], "context": 256}
    config, registry = Config.of(knobs), Registry({}, {}, "")
    pool = ModelPool(registry, Cancellation(), lambda config, registry, _: Engine(config, registry))
    try:
        models = pool.models(config, {"draft": config.draft, "untuned": config.draft})
        assert [card.name for card in models["draft"].card.adapters] == ["mine"]
        assert models["untuned"].card.adapters == ()
    finally:
        pool.close()


@pytest.mark.models
def test_scale_0_of_an_adapter_on_a_real_model_is_the_base_to_the_bit(opened: Opened, tmp_path: Path) -> None:
    """Quantised weights, and an adapter large enough that it is seen."""
    shapes = {tensor.name: tensor.shape for tensor in read_contents(SMOLLM).tensors}
    path, random = tmp_path / "random.gguf", np.random.default_rng(0)
    tensors = {}
    for name in (name for name in shapes if name.endswith(("attn_q.weight", "attn_v.weight"))):
        width, height = shapes[name]
        tensors[f"{name}.lora_a"] = random.normal(0, 0.05, (RANK, width)).astype(np.float32)
        tensors[f"{name}.lora_b"] = random.normal(0, 0.05, (height, RANK)).astype(np.float32)
    require_adapter(write_adapter(path, tensors), SMOLLM, "")
    rows = []
    for scale in (None, 0.0, 1.0):
        base = opened.lm(SMOLLM, num_sequences=1)
        adapters = [] if scale is None else [base.weights.adapter(path, "a" * 64, scale)]
        lm = opened.lm(SMOLLM, num_sequences=1, adapters=adapters)
        lm.extend({0: chat(lm, "Why is the sky blue?")})
        rows.append(lm.logits(0).copy())
    assert (rows[1] == rows[0]).all()
    assert np.abs(rows[2] - rows[0]).max() > 1


def test_a_named_adapter_must_be_the_file_that_its_name_promises(files: dict[str, Path]) -> None:
    entries = {
        name: ModelEntry(path=files["adapter"], sha256=sha256)
        for name, sha256 in (("good", file_sha256(files["adapter"])), ("bad", "0" * 64))
    }
    registry = Registry(entries, {}, "")
    for name in entries:
        config = Config.of({"draft": str(files["base"]), "lora": [f"{name}:0.5"]})
        opened = Loader(config, registry, Cancellation())
        if name == "good":
            opened.find("draft")
        else:
            with pytest.raises(ModelError, match="is not the file that 'bad' names"):
                opened.find("draft")


def test_one_file_under_two_names_is_there_once(files: dict[str, Path]) -> None:
    registry = Registry({"mine": ModelEntry(path=files["adapter"])}, {}, "")
    copy = files["adapter"].with_name("copy.gguf")
    copy.write_bytes(files["adapter"].read_bytes())
    for name in ("mine", str(copy)):
        config = Config.of({"draft": str(files["base"]), "lora": [name, str(files["adapter"])]})
        with pytest.raises(UsageError, match="is there twice"):
            Loader(config, registry, Cancellation()).find("draft")


@pytest.mark.usefixtures("probed_once")
def test_an_engine_goes_on_without_an_adapter_that_it_cannot_have(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """As a chat's /lora does: what does not fit changes nothing, what fits changes the answers."""
    knobs = {"draft": str(files["base"]), "context": 256, "depth": 0, "beams": 1, "max_tokens": 8}
    config = Config.of({**knobs, "temperature": 0, "ignore_eos": True})
    with Engine(config, Registry({}, {}, "")) as engine:
        before = engine.answer("ab").text
        damaged = write_adapter(tmp_path / "damaged.gguf", halves(ALL), alpha=None)
        with pytest.raises(ModelError, match="has no alpha"):
            list(engine.change(config.with_values({"lora": [str(damaged)]})))
        assert engine.answer("ab").text == before
        adapted = config.with_values({"lora": [str(files["adapter"])]})
        list(engine.change(adapted))
        result = engine.answer("ab", adapted)
        assert result.text != before
        card = result.models["draft"]
        assert card is not None
        assert [one.name for one in card.adapters] == ["mine"]
        assert result.as_dict()["models"]["draft"]["adapters"][0]["scale"] == 1.0
        list(engine.change(config))
        assert engine.answer("ab").text == before
