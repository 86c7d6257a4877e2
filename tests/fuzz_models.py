"""Mutated tiny models through the header check, and into llama.cpp in a child process where that lets them.

    python -m tests.fuzz_models --count 1000 --seed 1

Prints how many ended how; whatever is no ModelError ends it.
"""

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from alignbeam_local.errors import ModelError
from alignbeam_local.machine import probe
from alignbeam_local.models.gguf_header import require_model
from tests.llama_models import write_tiny

_WORDS = (0, 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)


def mutated(whole: bytes, random: random.Random) -> bytes:
    """One to four changes within the metadata, or the file cut off anywhere."""
    data, metadata = bytearray(whole), whole.rindex(b"_norm.weight") + 40
    how = random.choice(["bit", "byte", "word", "insert", "drop", "repeat", "cut"])
    if how == "cut":
        return whole[: random.randrange(len(whole))]
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        at, length = random.randrange(metadata), random.randrange(1, 40)
        match how:
            case "bit":
                data[at] ^= 1 << random.randrange(8)
            case "byte":
                data[at] = random.randrange(256)
            case "word":
                data[at : at + 8] = random.choice([*_WORDS, random.getrandbits(64)]).to_bytes(8, "little")
            case "insert":
                data[at:at] = random.randbytes(length)
            case "drop":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length]
    return bytes(data)


def outcome(path: Path) -> str:
    """Who refused the file, and how."""
    try:
        require_model(path)
    except ModelError:
        return "refused by the header check"
    try:
        probe.weights_may_be_repacked(path)
    except ModelError as error:
        for sign, name in (("crashes", "crashed"), ("did not finish", "hung"), ("could not load", "refused")):
            if sign in error.message:
                return f"let through, and llama.cpp {name} (in the child)"
        return f"let through: {error.message.removeprefix(str(path)).partition(':')[0]}"
    return "let through, and runs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    probe._LEAST_SECONDS = 20
    rng, outcomes, slowest = random.Random(options.seed), Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALIGNBEAM_CACHE_DIR"] = folder
        path = write_tiny(Path(folder) / "tiny.gguf", "llama")
        whole = path.read_bytes()
        for _ in range(options.count):
            path.write_bytes(mutated(whole, rng))
            started = time.monotonic()
            outcomes[outcome(path)] += 1
            slowest = max(slowest, time.monotonic() - started)
    for name, count in outcomes.most_common():
        print(f"{count:6}  {name}")
    print(f"slowest: {slowest:.1f} s")


if __name__ == "__main__":
    main()
