"""What a decode reads."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from .threads import llama_cpp


class Batch:
    """A llama_batch on numpy arrays, so that a long prefill is filled without a Python loop."""

    def __init__(self, capacity: int) -> None:
        self.token = np.zeros(capacity, np.int32)
        self.position = np.zeros(capacity, np.int32)
        self.sequence = np.zeros(capacity, np.int32)
        self.wants_logits = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        self._sequence_pointers = self.sequence.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)
        self._struct = llama_cpp.llama_batch()
        kinds: dict[str, Any] = {field[0]: field[1] for field in llama_cpp.llama_batch._fields_}
        for name, array in (
            ("token", self.token),
            ("pos", self.position),
            ("n_seq_id", self._ones),
            ("seq_id", self._sequence_pointers),
            ("logits", self.wants_logits),
        ):
            setattr(self._struct, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def fill(self, rows: npt.NDArray[np.int32]) -> Any:
        """Take rows of (token, position, sequence, wants_logits); returns the struct for llama_decode."""
        count = len(rows)
        self.token[:count], self.position[:count] = rows[:, 0], rows[:, 1]
        self.sequence[:count], self.wants_logits[:count] = rows[:, 2], rows[:, 3]
        self._struct.n_tokens = count
        return self._struct
