"""The states of one layer: the decode ends behind it, and they are those of a decode that goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.errors import Cancelled, ModelError
from alignbeam_local.llama.layer_tap import LayerTap
from alignbeam_local.lm.language_model import Hidden
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.lm.sequences import BATCH_TOKENS
from alignbeam_local.lm.slots import SharedContext
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row
from tests.llama_models import KINDS, PROMPT, ROUNDING, WIDTH, Kv, Opened, contexts_closed, opened, write_tiny
from tests.test_lanes import Sleeper

__all__ = ["contexts_closed", "opened"]

LAYERS = 4
LONG = [1, *(3 + n % 250 for n in range(BATCH_TOKENS + 40))]
BESIDE = [[*PROMPT[:2], 60, 61], [*PROMPT, 62], [90, 91, 92], PROMPT[:2]]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("deep")
    return {
        "llama": write_tiny(folder / "llama.gguf", "llama", blocks=LAYERS),
        "mamba": write_tiny(folder / "mamba.gguf", "mamba", blocks=LAYERS),
    }


class WholeTap(LayerTap):
    """The slow obvious version: takes what every layer puts out, of a decode that goes on to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, Hidden] = {}

    def _look(self, tensor: int, is_asked: bool, about: object) -> bool:
        name = str(self._name(tensor).decode())
        if is_asked:
            return name.startswith("l_out-") and name != f"l_out-{LAYERS - 1}"
        layer = int(name.removeprefix("l_out-"))
        self.layers = [layer]
        super()._look(tensor, is_asked, about)
        self.last[layer] = self.taken[layer].reshape(-1, WIDTH)[-1]
        return True


def reference(
    opened: Opened, path: Path, ids: Sequence[int], patched: pytest.MonkeyPatch
) -> Mapping[int, Hidden]:
    """By layer the state at the last of these tokens."""
    tap = WholeTap()
    with patched.context() as for_now:
        for_now.setattr("alignbeam_local.llama.context.LayerTap", lambda: tap)
        opened.lm(path, reads_layers=True, num_sequences=1).extend({0: ids})
    return tap.last


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_each_layers_states_are_those_of_a_decode_that_goes_on(
    deep: dict[str, Path], opened: Opened, monkeypatch: pytest.MonkeyPatch, kind: str, kv: Kv
) -> None:
    for ids in (PROMPT, PROMPT[:1], LONG):
        agrees(deep[kind], opened, monkeypatch, kv, ids)


def agrees(path: Path, opened: Opened, patched: pytest.MonkeyPatch, kv: Kv, ids: Sequence[int]) -> None:
    expected = reference(opened, path, ids, patched)
    lm = opened.lm(path, kv, reads_layers=True)
    found = {}
    for layer in range(lm.num_layers - 1):
        lm.read_at([layer])
        found[layer] = lm.read({1: ids})[1]
    assert found.keys() == expected.keys() == {0, 1, 2}
    for layer, state in expected.items():
        assert np.abs(found[layer] - state).max() < ROUNDING
    assert np.abs(found[0] - found[1]).max() > 10 * ROUNDING
    lm.read_at(range(3))
    together = np.concatenate([found[layer] for layer in range(3)])
    assert np.array_equal(lm.read({1: ids})[1], together), "several at once"
    lm.read_at(())
    plain = opened.lm(path, kv).read({1: ids})[1]
    assert np.abs(lm.read({1: ids})[1] - plain).max() < ROUNDING, "after the final norm, as without a tap"


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_prompts_beside_another_and_behind_what_is_held_are_read_as_by_themselves(
    deep: dict[str, Path], opened: Opened, monkeypatch: pytest.MonkeyPatch, kind: str, kv: Kv
) -> None:
    lm = opened.lm(deep[kind], kv, reads_layers=True)
    lm.read_at([1])
    cache = PromptCache(lm)
    for ids in (PROMPT, [*PROMPT, 63, 64]):
        states = [cache.read(ids), *cache.read_beside(BESIDE)]
        for state, own in zip(states, [ids, *BESIDE], strict=True):
            assert np.abs(state - reference(opened, deep[kind], own, monkeypatch)[1]).max() < ROUNDING
    assert list(lm.tokens(0)) == [*PROMPT, 63, 64]
    assert not any(lm.tokens(sequence) for sequence in range(1, lm.num_sequences))


def test_the_layers_behind_it_are_not_computed(
    deep: dict[str, Path], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Noting(LayerTap):
        def _look(self, tensor: int, is_asked: bool, about: object) -> bool:
            seen.append(self._name(tensor).decode())
            return super()._look(tensor, is_asked, about)

    monkeypatch.setattr("alignbeam_local.llama.context.LayerTap", Noting)
    lm = opened.lm(deep["llama"], reads_layers=True)
    lm.read_at([1])
    lm.read({0: PROMPT})
    assert [name for name in seen if name.startswith("l_out")] == ["l_out-0", "l_out-1", "l_out-1"]


def test_layers_that_there_are_not(deep: dict[str, Path], opened: Opened) -> None:
    lm = opened.lm(deep["llama"], reads_layers=True)
    for layer in (-1, LAYERS - 1, LAYERS):
        with pytest.raises(ModelError, match="has 4 layers"):
            lm.read_at([1, layer])


def test_a_layer_that_no_node_is_named_after_is_an_error(
    deep: dict[str, Path], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignbeam_local.llama.layer_tap._OUTPUT", "unheard_of")
    lm = opened.lm(deep["llama"], reads_layers=True)
    lm.read_at([1])
    with pytest.raises(ModelError, match="names no output of layer 1"):
        lm.read({0: PROMPT})
    assert not lm.tokens(0)


def test_a_reading_that_is_cancelled_leaves_no_trace(deep: dict[str, Path], opened: Opened) -> None:
    cancellation = Cancellation()
    lm = opened.lm(deep["llama"], reads_layers=True, cancellation=cancellation)
    lm.read_at([1])
    lm.read({0: PROMPT})
    cancellation.set()
    with pytest.raises(Cancelled):
        lm.read({0: [*PROMPT, 60]})
    assert list(lm.tokens(0)) == PROMPT


def test_slots_read_at_the_layer_of_their_context() -> None:
    vocabulary = fake_vocabulary()
    lm = FakeLM(vocabulary, hashed_row(vocabulary.size), reads_layers=True)
    lm.read_at([2])
    shared = SharedContext(lm, 2, has_rows=False)
    assert (shared.slots[1].num_layers, lm.layers) == (4, (2,))
    left, right = (Sleeper(lambda slot=slot: slot.read({0: PROMPT})[0]) for slot in shared.slots)
    shared.decode()
    assert np.array_equal(left.found, right.found)
    shared.piece_tokens = 2
    later = [Sleeper(lambda slot=slot: slot.read({0: [9, *PROMPT]})[0]) for slot in shared.slots]
    while shared.is_wanted:
        shared.decode()
    assert not any(one.error for one in later), "there are no rows to keep for the other slot"
    assert np.array_equal(later[0].found, later[1].found)
