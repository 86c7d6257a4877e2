"""How often a vocabulary takes plain text for a cipher, and text in a cipher for one.

    python docs/measure_dresses.py MODEL.gguf FILE.jsonl...

The files have a prompt a line. Those of Latin letters are put in each dress that is told by its tokens, and
counted where at least one of their pieces is plainer in another spelling, whichever that is.
"""

import argparse
import codecs
import json
from pathlib import Path

from alignbeam_local.evaluation.suites.attacks import ATTACKS
from alignbeam_local.evaluation.suites.suites import Item
from alignbeam_local.llama.weights import load_vocabulary
from alignbeam_local.prompt.undressed import deciphered

DRESSES = {
    "ROT13": lambda text: codecs.encode(text, "rot13"),
    "backwards": lambda text: text[::-1],
    "digits": lambda text: ATTACKS["leetspeak"].change(Item("", "", text, "")).prompt,
    "set apart": " ".join,
}


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    rows = [json.loads(line) for file in given.files for line in file.read_text("utf-8").splitlines()]
    prompts = [row["prompt"] for row in rows if "prompt" in row]
    latin = [prompt for prompt in prompts if max(prompt) < "\u0250"]
    vocabulary, _ = load_vocabulary(given.model)

    def found(texts: list[str]) -> str:
        return f"{sum(any(deciphered(text, vocabulary.num_tokens)) for text in texts)} of {len(texts)}"

    print(f"plain: {found(prompts)}")
    for name, dress in DRESSES.items():
        print(f"{name}: {found(list(map(dress, latin)))}")


if __name__ == "__main__":
    main()
