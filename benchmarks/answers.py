"""How many answers a second the parser reads, on one core, and whether its short road reads them as its long one does.

    python benchmarks/answers.py

Ordinary answers are one sentence or one pair of numbers. Long ones are about 2 kB of reasoning without tags: prose with
times all over it, at whose end the answer stands.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence

from timelens_plugins.answers import parse_answer
from timelens_plugins.answers.cleaning import clean
from timelens_plugins.answers.parser import read_fully

FORMS = {
    "as the prompt asks": "The event happens in {a:.1f} - {b:.1f} seconds.",
    "as a sentence": "The event happens from {a:.1f} seconds to {b:.1f} seconds.",
    "two numbers": "{a:.1f} - {b:.1f}",
    "in tags": "<think>The man opens the door at {a:.1f} s.</think><answer>{a:.1f} to {b:.1f}</answer>",
    "clock": "{m:02d}:{s:02d} - {n:02d}:{t:02d}",
    "JSON": '```json\n[{{"start": {a:.1f}, "end": {b:.1f}}}]\n```',
    "words": "It starts at {a:.1f} seconds and ends at {b:.1f} seconds.",
}
SENTENCES = (
    "The video shows a man who walks into the kitchen and looks around.",
    "At {a:.1f} seconds he opens the door of the fridge, and at {b:.1f} s he takes out a bottle.",
    "From {a:.1f} to {b:.1f} seconds the woman sits down on the couch and starts to read a book.",
    "Between 0:{s:02d} and 0:{t:02d} nothing else is visible, so I look at the next frames.",
    "It is not clear whether this is what the query describes, but the clothes are the same.",
)


def ordinary(count: int, form: str, seed: int = 0) -> list[str]:
    """``count`` different answers of one form."""
    rng = random.Random(seed)
    return [form.format(**_numbers(rng)) for _ in range(count)]


def long(count: int, size: int = 2000, seed: int = 0) -> list[str]:
    """``count`` different answers of about ``size`` characters."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        text = ""
        while len(text) < size - 45:
            text += rng.choice(SENTENCES).format(**_numbers(rng)) + " "
        texts.append(text + FORMS["as the prompt asks"].format(**_numbers(rng)))
    return texts


def _numbers(rng: random.Random) -> dict[str, float]:
    a = rng.uniform(0, 150)
    b = a + rng.uniform(0.5, 40)
    m, s, t = rng.randrange(9), rng.randrange(59), rng.randrange(59)
    return {"a": a, "b": b, "m": m, "s": s, "n": m + 1, "t": t}


def rate(texts: Sequence[str], **arguments: object) -> float:
    """Answers a second, best of five passes over all of them, in processor time."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for text in texts:
            parse_answer(text, **arguments)  # type: ignore[arg-type]
        best = min(best, time.process_time() - start)
    return len(texts) / best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5_000, help="answers of each form (default: 5000)")
    count = parser.parse_args().count
    sets = {name: ordinary(count, form) for name, form in FORMS.items()}
    sets["2 kB of prose"] = long(max(1, count // 10))
    query, duration = "person opens the door of the fridge", 190.0
    print(f"{'answers':<22}{'a second':>12}{'with query and duration':>26}")
    for name, texts in sets.items():
        for text in texts:
            assert parse_answer(text) == read_fully(text, None, None, False), text
            fully = read_fully(text, clean(query), duration, False)
            assert parse_answer(text, query=query, duration=duration) == fully, text
        print(f"{name:<22}{rate(texts):>12,.0f}{rate(texts, query=query, duration=duration):>26,.0f}")


if __name__ == "__main__":
    main()
