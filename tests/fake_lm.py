"""A tokeniser and a language model without weights: full implementations of the two protocols."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from itertools import count
from typing import Literal

import numpy as np
import numpy.typing as npt

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.errors import ContextFull, ModelError, UsageError
from alignbeam_local.lm.language_model import (
    Hidden,
    Logits,
    Sampler,
    SamplerSettings,
    SequenceState,
    common_prefix,
)
from alignbeam_local.lm.vocabulary import Vocabulary

Row = Callable[[Sequence[int]], Logits]

#: Numbers of a hidden state that nobody scripted.
WIDTH = 8

BYTES = tuple(bytes([value]) for value in range(256))
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


class FakeTokeniser:
    """Greedy longest match over byte pieces; control tokens come after them, spelt as given.

    Every byte must be a piece, or encoding text that needs it fails.
    """

    def __init__(
        self,
        pieces: Sequence[bytes],
        control: Sequence[str] = CHATML,
        *,
        bos: str | None = None,
        eos: str | None = "<|endoftext|>",
        eot: str | None = "<|im_end|>",
        add_bos: bool = False,
        space_prefix: bool = False,
    ) -> None:
        self._pieces = list(pieces)
        self._control = list(control)
        self._ids = {piece: token for token, piece in reversed(list(enumerate(pieces)))}
        self._spellings = {spelt.encode(): len(pieces) + i for i, spelt in enumerate(control)}
        self._plain = re.compile(_longest_of(self._ids))
        self._special = re.compile(b"(" + _longest_of(self._spellings) + b")")
        self._space_prefix = space_prefix
        self.size = len(self._pieces) + len(self._control)
        self.bos, self.eos, self.eot = map(self._control_token, (bos, eos, eot))
        self.add_bos = add_bos
        self.control_tokens = frozenset(self._spellings.values())
        self.end_tokens = frozenset(token for token in (self.eos, self.eot) if token is not None)

    def _control_token(self, spelt: str | None) -> int | None:
        return None if spelt is None else self._spellings[spelt.encode()]

    def piece(self, token: int) -> bytes:
        return self._pieces[token] if token < len(self._pieces) else b""

    def text(self, token: int) -> str:
        if token in self.control_tokens:
            return self._control[token - len(self._pieces)]
        return self._pieces[token].decode("utf-8", "replace")

    def encode(self, text: bytes, parse_special: bool) -> list[int]:
        if not self._space_prefix and not parse_special:
            return self._matched(text)
        ids: list[int] = []
        # Of what is split at a group every second one is the group: here what spells a control token.
        for number, run in enumerate(self._special.split(text) if parse_special else [text]):
            if number % 2:
                ids.append(self._spellings[run])
            elif run:
                ids += self._matched(b" " * self._space_prefix + run)
        return ids

    def _matched(self, text: bytes) -> list[int]:
        pieces = self._plain.findall(text)
        assert sum(map(len, pieces)) == len(text), f"some byte of {text!r} is no piece"
        return [self._ids[piece] for piece in pieces]


def _longest_of(words: Iterable[bytes]) -> bytes:
    """A pattern that matches the longest of these that begins here, or nothing at all."""
    return b"|".join(map(re.escape, sorted(filter(None, words), key=len, reverse=True))) or b"(?!)"


def fake_vocabulary(
    *words: str,
    control: Sequence[str] = CHATML,
    bos: str | None = None,
    eos: str | None = "<|endoftext|>",
    eot: str | None = "<|im_end|>",
    add_bos: bool = False,
    space_prefix: bool = False,
) -> Vocabulary:
    """All bytes (ids 0 to 255), then the words, then the control tokens."""
    pieces = [*BYTES, *(word.encode() for word in words)]
    return Vocabulary(
        FakeTokeniser(pieces, control, bos=bos, eos=eos, eot=eot, add_bos=add_bos, space_prefix=space_prefix)
    )


def hashed_row(size: int, seed: int = 0, scale: float = 3.0) -> Row:
    """Rows that look random and depend on nothing but the tokens and the seed."""

    @cache
    def row(tokens: tuple[int, ...]) -> Logits:
        digest = blake2b(repr((seed, tokens)).encode(), digest_size=8).digest()
        noise = np.random.default_rng(int.from_bytes(digest, "little")).normal(0.0, scale, size)
        return noise.astype(np.float32)

    return lambda tokens: row(tuple(tokens)).copy()


def scripted_row(vocabulary: Vocabulary, script: Mapping[str, str | Sequence[str]]) -> Row:
    """Rows that continue as a script says, then end.

    After a text that holds a key comes the key's value; of several alternatives the first is likeliest.
    Among keys the one that ends last decides, then the longest. A sequence that left the script ends.
    """
    alternatives = {
        key.encode(): [text.encode() for text in ([value] if isinstance(value, str) else value)]
        for key, value in script.items()
    }
    end = vocabulary.eot if vocabulary.eot is not None else vocabulary.eos
    assert end is not None

    def row(tokens: Sequence[int]) -> Logits:
        text = spelt(vocabulary, tokens)
        keys = [key for key in alternatives if key in text]
        key = max(keys, key=lambda key: (text.rfind(key) + len(key), len(key)), default=None)
        logits = np.zeros(vocabulary.size, np.float32)
        logits[end] = 5.0
        if key is None:
            return logits
        said = text[text.rfind(key) + len(key) :]
        matching = [text[len(said) :] for text in alternatives[key] if text.startswith(said)]
        for rank, rest in reversed(list(enumerate(matching))):
            logits[_next_token(vocabulary, rest, end)] = 20.0 - rank
        return logits

    return row


def _next_token(vocabulary: Vocabulary, rest: bytes, end: int) -> int:
    if not rest:
        return end
    begins_inside = 0x80 <= rest[0] < 0xC0  # a character: its bytes are tokens, and no text to encode
    return rest[0] if begins_inside else vocabulary.encode(rest)[0]


def spelt(vocabulary: Vocabulary, tokens: Sequence[int]) -> bytes:
    """The tokens as bytes, control tokens spelt out."""
    control = vocabulary.control_tokens
    return b"".join(vocabulary.text(t).encode() if t in control else vocabulary.piece(t) for t in tokens)


class FakeLM:
    """`LanguageModel` on a function from tokens to logits; no arithmetic but the sampler's.

    `hidden` does the same for hidden states, of every layer; the default ones look random.

    `batches` records every decode as sequence -> number of tokens. Rows handed out are filled with NaN at
    the next decode, and asking for a row that the last decode did not make is an AssertionError.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        row: Row,
        *,
        num_sequences: int = 8,
        num_cells: int = 4096,
        kv_strategy: Literal["seq", "state"] = "seq",
        key: str = "fake",
        cancellation: Cancellation | None = None,
        hidden: Row | None = None,
        saves: bool = True,
        reads_layers: bool = False,
    ) -> None:
        self.vocabulary = vocabulary
        self.num_layers = 4
        self.layers: tuple[int, ...] = ()
        self._reads_layers = reads_layers
        self.num_sequences = num_sequences
        self.num_cells = num_cells
        self.kv_strategy = kv_strategy
        self.saves = saves
        self.decoded_tokens = 0
        self.compute_seconds = 0.0
        self.batches: list[dict[int, int]] = []
        self.is_closed = False
        self._row = row
        self._hidden = hidden or hashed_row(WIDTH, seed=1)
        self.state_key = key
        self._cancellation = cancellation or Cancellation()
        self._tokens: list[list[int]] = [[] for _ in range(num_sequences)]
        self._cells: list[list[int]] = [[] for _ in range(num_sequences)]  # shared cells have one name
        self._new_cells = count()
        self._checkpoints: dict[int, SequenceState] = {}
        self._rows: dict[int, Logits] = {}
        self._decoded: set[int] = set()  # what the last decode made rows for

    # --- decoding

    @property
    def decodes(self) -> int:
        return len(self.batches)

    @property
    def used_cells(self) -> int:
        """Cells that hold something; what sequences share counts once."""
        return len({cell for cells in self._cells for cell in cells})

    def tokens(self, sequence: int) -> Sequence[int]:
        return self._tokens[sequence]

    def extend(self, tails: Mapping[int, Sequence[int]]) -> None:
        assert not self.is_closed, "the model is closed"
        assert tails, "nothing to decode"
        assert all(len(tail) > 0 for tail in tails.values()), "tails must not be empty"
        self._cancellation.check()
        self._drop_rows()
        self._require_cells(sum(map(len, tails.values())))
        self.batches.append({sequence: len(tail) for sequence, tail in tails.items()})
        for sequence, tail in tails.items():
            self._append(sequence, tail)
            self._rows[sequence] = self._row(self._tokens[sequence]).copy()
            self.decoded_tokens += len(tail)
        self._decoded = set(tails)

    def _drop_rows(self) -> None:
        for row in self._rows.values():
            row.fill(np.nan)
        self._rows, self._decoded = {}, set()

    def _require_cells(self, wanted: int) -> None:
        if self.used_cells + wanted > self.num_cells:
            raise ContextFull(f"the conversation does not fit: {self.num_cells} cells are full")

    def _append(self, sequence: int, tail: Sequence[int]) -> None:
        assert all(0 <= token < self.vocabulary.size for token in tail), f"no such token in {tail}"
        self._tokens[sequence].extend(tail)
        self._cells[sequence].extend(next(self._new_cells) for _ in tail)

    def set_tokens(self, targets: Mapping[int, Sequence[int]]) -> None:
        self.extend(self._new_tails(targets))

    def _new_tails(self, targets: Mapping[int, Sequence[int]]) -> dict[int, Sequence[int]]:
        tails = {}
        for sequence, ids in targets.items():
            keep = min(common_prefix(self._tokens[sequence], ids), len(ids) - 1)
            tails[sequence] = ids[self._rewind(sequence, keep) :]
        return tails

    def read_at(self, layers: Iterable[int]) -> None:
        assert self._reads_layers, "this context makes answers"
        self.layers = tuple(sorted(layers))
        if any(not 0 <= layer < self.num_layers - 1 for layer in self.layers):
            raise ModelError(f"the model has {self.num_layers} layers: one is not there, or the last")

    def read(self, targets: Mapping[int, Sequence[int]]) -> dict[int, Hidden]:
        tails = self._new_tails(targets)
        if before := {sequence: tail[:-1] for sequence, tail in tails.items() if len(tail) > 1}:
            self.extend(before)
        self.extend({sequence: tail[-1:] for sequence, tail in tails.items()})
        times = max(1, len(self.layers))
        return {sequence: np.tile(self._hidden(self._tokens[sequence]), times) for sequence in tails}

    def logits(self, sequence: int) -> Logits:
        assert not self._reads_layers, "this context reads, and makes no answers"
        assert sequence in self._rows, f"sequence {sequence} has no row, or a stale one"
        return self._rows[sequence]

    def sampler(self, settings: SamplerSettings) -> Sampler:
        return FakeSampler(self, settings)

    def sampled_row(self, sequence: int) -> Logits:
        """The row for a sampler, which sees no row but those of the last decode."""
        assert sequence in self._decoded, f"the last decode made no row for sequence {sequence}"
        return self.logits(sequence)

    # --- cache

    def fork(self, source: int, targets: Iterable[int]) -> None:
        for target in targets:
            assert target != source, "a sequence can't fork onto itself"
            if self.kv_strategy == "state":
                self.restore(target, self.save(source))
                self._drop(target)
            else:
                self._cut(target, 0)
                self._tokens[target] = list(self._tokens[source])
                self._cells[target] = list(self._cells[source])
            if source in self._checkpoints:
                self._checkpoints[target] = self._checkpoints[source]

    def truncate(self, sequence: int, length: int) -> None:
        wanted = self._tokens[sequence][:length]
        kept = self._rewind(sequence, length)
        if kept < length:
            self.extend({sequence: wanted[kept:]})

    def checkpoint(self, sequence: int) -> None:
        if self.kv_strategy == "state":
            self._checkpoints[sequence] = self.save(sequence)

    def _rewind(self, sequence: int, length: int) -> int:
        if length >= len(self._tokens[sequence]):
            return len(self._tokens[sequence])
        saved, kept = self._checkpoints.get(sequence), self._tokens[sequence][:length]
        if self.kv_strategy == "seq":
            self._cut(sequence, length)
        elif saved is not None and saved.tokens == tuple(kept[: len(saved.tokens)]):
            self.restore(sequence, saved)
        else:
            self._cut(sequence, 0)
        return len(self._tokens[sequence])

    def _cut(self, sequence: int, length: int) -> None:
        del self._tokens[sequence][length:]
        del self._cells[sequence][length:]
        self._drop(sequence)

    def _drop(self, sequence: int) -> None:
        self._rows.pop(sequence, None)
        self._decoded.discard(sequence)

    def save(self, sequence: int) -> SequenceState:
        assert self.saves, "llama.cpp would end the process here"
        tokens = self._tokens[sequence]
        row = self._rows.get(sequence)
        blob = np.array(tokens, np.int32).tobytes()
        return SequenceState(self.state_key, tuple(tokens), blob, None if row is None else row.copy())

    def restore(self, sequence: int, state: SequenceState) -> None:
        if state.key != self.state_key or len(state.blob) != 4 * len(state.tokens):
            raise ModelError("a saved state belongs to another model or is damaged", "Prefill again.")
        self._cut(sequence, 0)
        self._require_cells(len(state.tokens))
        self._append(sequence, state.tokens)
        if state.logits is not None:
            self._rows[sequence] = state.logits.copy()

    def close(self) -> None:
        self.is_closed = True


class FakeSampler:
    """Penalties, top_k, top_p, min_p, temperature, dist as llama.cpp chains them; greedy at temperature 0.

    Of a grammar it knows `root ::= "one" | "other"`: the answer is one of these texts.
    """

    def __init__(self, model: FakeLM, settings: SamplerSettings) -> None:
        self._model = model
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)
        self.accepted: list[int] = []
        self.is_closed = False

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def allowed(self, row: Logits) -> Logits:
        if not self._settings.grammar:
            return row
        texts = [text.encode() for text in re.findall('"(.*?)"', self._settings.grammar)]
        vocabulary = self._model.vocabulary
        said = vocabulary.pieces(self.accepted)
        nexts = [
            said in texts if token in vocabulary.end_tokens else bool(piece) and _begins(said + piece, texts)
            for token, piece in enumerate(map(vocabulary.piece, range(vocabulary.size)))
        ]
        if not any(nexts):
            raise UsageError("the grammar accepts no token")
        return np.where(nexts, row, -np.inf).astype(np.float32)

    def sample(self, sequence: int) -> int:
        assert not self.is_closed, "the sampler is closed"
        row = self.allowed(self._model.sampled_row(sequence))
        logits = self._penalised(row.astype(np.float64))
        token = self._draw(logits)
        self.accept(token)
        return token

    def _penalised(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        last_n, penalty = self._settings.penalty_last_n, self._settings.repeat_penalty
        seen = list(set(self.accepted[-last_n:])) if last_n > 0 else []
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        return logits

    def _draw(self, logits: npt.NDArray[np.float64]) -> int:
        if self._settings.temperature == 0:
            return int(np.argmax(logits))
        kept = self._kept(logits)
        return int(self._random.choice(kept, p=_softmax(logits[kept] / self._settings.temperature)))

    def _kept(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        order = np.argsort(-logits, kind="stable")[: self._settings.top_k or None]
        mass = np.cumsum(_softmax(logits[order]))
        order = order[: int(np.searchsorted(mass, self._settings.top_p)) + 1]
        likeliness = _softmax(logits[order])
        kept: npt.NDArray[np.int64] = order[likeliness >= self._settings.min_p * likeliness[0]]
        return kept

    def close(self) -> None:
        self.is_closed = True


def _begins(text: bytes, texts: Sequence[bytes]) -> bool:
    return any(whole.startswith(text) for whole in texts)


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = np.exp(logits - logits.max())
    return weights / float(weights.sum())
