"""The fake keeps the protocols' promises, or the tests that stand on it show nothing."""

import numpy as np
import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.errors import Cancelled, ContextFull, ModelError
from alignbeam_local.lm.language_model import LanguageModel, SamplerSettings
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row, scripted_row, spelt

VOCABULARY = fake_vocabulary("he", "hello", " world")
GREEDY = SamplerSettings(temperature=0, top_p=1.0, repeat_penalty=1.0, penalty_last_n=64, seed=0)


def fake(**options: object) -> FakeLM:
    return FakeLM(VOCABULARY, hashed_row(VOCABULARY.size), **options)  # type: ignore[arg-type]


def test_is_a_language_model() -> None:
    model: LanguageModel = fake()
    assert model.num_sequences == 8


def test_tokeniser_takes_the_longest_piece() -> None:
    assert VOCABULARY.encode("hello world") == [257, 258]
    assert VOCABULARY.pieces(VOCABULARY.encode("héllo")) == "héllo".encode()


def test_tokeniser_parses_control_tokens_only_in_templates() -> None:
    start = VOCABULARY.encode_template("<|im_start|>h")
    assert start == [260, ord("h")]
    assert VOCABULARY.text(260) == "<|im_start|>"
    assert VOCABULARY.piece(260) == b""
    assert VOCABULARY.encode("<|im_start|>") == list(b"<|im_start|>")


def test_tokeniser_puts_a_space_at_the_start_and_behind_control_tokens() -> None:
    vocabulary = fake_vocabulary(space_prefix=True)
    assert vocabulary.adds_space_prefix
    assert spelt(vocabulary, vocabulary.encode_template("a<|im_end|>b")) == b" a<|im_end|> b"
    assert vocabulary.encode("ab") == list(b"ab")


def test_rows_depend_on_the_tokens_alone() -> None:
    model = fake()
    model.extend({0: [1, 2], 1: [1]})
    first = model.logits(0).copy()
    model.extend({1: [2]})
    assert np.array_equal(model.logits(1), first)
    model.extend({1: [2]})
    assert not np.array_equal(model.logits(1), first)


def test_one_batch_is_recorded_a_decode() -> None:
    model = fake()
    model.extend({0: [1, 2], 1: [1]})
    model.set_tokens({0: [1, 3, 4], 1: [1]})
    assert model.batches == [{0: 2, 1: 1}, {0: 2, 1: 1}]
    assert model.decoded_tokens == 6
    assert list(model.tokens(0)) == [1, 3, 4]


def test_a_row_is_stale_after_the_next_decode() -> None:
    model = fake()
    model.extend({0: [1]})
    row = model.logits(0)
    model.extend({1: [1]})
    assert np.isnan(row).all()
    with pytest.raises(AssertionError, match="no row"):
        model.logits(0)


def test_a_fork_shares_cells_and_has_no_row() -> None:
    model = fake()
    model.extend({0: [1, 2, 3]})
    model.fork(0, [1, 2])
    assert model.used_cells == 3
    assert list(model.tokens(2)) == [1, 2, 3]
    with pytest.raises(AssertionError):
        model.logits(1)
    model.extend({1: [4], 2: [5]})
    assert model.used_cells == 5
    assert list(model.tokens(0)) == [1, 2, 3]


def test_a_fork_by_state_takes_cells_of_its_own() -> None:
    model = fake(kv_strategy="state")
    model.extend({0: [1, 2, 3]})
    model.fork(0, [1])
    assert model.used_cells == 6


def test_where_the_cache_cannot_be_cut_a_rewind_decodes_again_from_the_checkpoint() -> None:
    model = fake(kv_strategy="state")
    model.extend({0: [1, 2]})
    model.checkpoint(0)
    model.extend({0: [3, 4]})
    model.truncate(0, 3)
    assert list(model.tokens(0)) == [1, 2, 3]
    assert model.batches[-1] == {0: 1}
    model.truncate(0, 1)
    assert list(model.tokens(0)) == [1]
    assert model.batches[-1] == {0: 1}


def test_truncate_where_it_can_be_cut_decodes_nothing() -> None:
    model = fake()
    model.extend({0: [1, 2, 3]})
    model.truncate(0, 2)
    assert list(model.tokens(0)) == [1, 2]
    assert model.used_cells == 2
    assert len(model.batches) == 1


def test_full_cells_change_nothing() -> None:
    model = fake(num_cells=3)
    model.extend({0: [1, 2]})
    with pytest.raises(ContextFull):
        model.extend({1: [1, 2]})
    assert (list(model.tokens(1)), model.decoded_tokens, len(model.batches)) == ([], 2, 1)


def test_cancellation_stops_a_decode() -> None:
    cancellation = Cancellation()
    model = fake(cancellation=cancellation)
    cancellation.set()
    with pytest.raises(Cancelled):
        model.extend({0: [1]})
    assert list(model.tokens(0)) == []


def test_a_restored_sequence_is_what_was_saved() -> None:
    model = fake()
    model.extend({0: [1, 2]})
    state, row = model.save(0), model.logits(0).copy()
    model.extend({0: [3]})
    model.restore(5, state)
    assert list(model.tokens(5)) == [1, 2]
    assert np.array_equal(model.logits(5), row)
    with pytest.raises(AssertionError):
        model.sampler(GREEDY).sample(5)


def test_a_state_of_another_model_is_refused() -> None:
    model = fake()
    model.extend({0: [1]})
    with pytest.raises(ModelError):
        fake(key="other").restore(0, model.save(0))


def test_greedy_takes_the_argmax_and_penalties_move_it() -> None:
    logits = np.zeros(VOCABULARY.size, np.float32)
    logits[[7, 8]] = 2.0, 1.9
    model = FakeLM(VOCABULARY, lambda tokens: logits)
    model.extend({0: [1]})
    assert model.sampler(GREEDY).sample(0) == 7
    penalising = model.sampler(SamplerSettings(0, 1.0, 1.15, 64, 0))
    assert [penalising.sample(0), penalising.sample(0)] == [7, 8]
    disabled = model.sampler(SamplerSettings(0, 1.0, 1.15, -1, 0))
    assert [disabled.sample(0), disabled.sample(0)] == [7, 7]


def test_sampling_repeats_with_its_seed() -> None:
    model = fake()
    model.extend({0: [1]})
    settings = SamplerSettings(temperature=5.0, top_p=1.0, repeat_penalty=1.0, penalty_last_n=8, seed=3)
    samplers = model.sampler(settings), model.sampler(settings)
    first, second = ([sampler.sample(0) for _ in range(20)] for sampler in samplers)
    assert first == second
    assert len(set(first)) > 1


def test_top_p_keeps_the_head() -> None:
    model = fake()
    model.extend({0: [1]})
    sampler = model.sampler(SamplerSettings(5.0, 0.01, 1.0, 8, 3))
    assert {sampler.sample(0) for _ in range(20)} == {int(np.argmax(model.logits(0)))}


def test_a_script_is_followed_to_its_end() -> None:
    row = scripted_row(VOCABULARY, {"Q": ("hello world", "no")})
    model = FakeLM(VOCABULARY, row)
    model.extend({0: VOCABULARY.encode("Q")})
    assert np.argsort(-model.logits(0))[:2].tolist() == [257, ord("n")]
    sampler = model.sampler(GREEDY)
    while (token := sampler.sample(0)) not in VOCABULARY.end_tokens:
        model.extend({0: [token]})
    assert VOCABULARY.pieces(model.tokens(0)) == b"Qhello world"
    assert token == VOCABULARY.eot
