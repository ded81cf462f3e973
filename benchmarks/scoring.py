"""What scoring and reporting a large result file cost: processor seconds and memory of the commands.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --rows 20000 --commands score

The file is one of TimeLens's own form (a JSON line for each answer), five queries a video, answers as the prompt asks
for them. Each command is a process of its own; start-up counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = ("score", "report")
WHO = ("a person", "the man in a red shirt", "a woman", "the child", "somebody")
DOES = ("opens", "closes", "takes", "puts down", "looks at", "walks to", "throws away")
WHAT = ("the door", "a book", "the fridge", "a cup of coffee", "the window", "a towel")
NEXT = ("", "and sits down", "in the kitchen", "while talking on the phone", "for a second time")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) / "charades.jsonl"
        write(results, args.rows)
        print(f"{args.rows:,} answers, {results.stat().st_size / 2**20:.0f} MB")
        for command in args.commands:
            output = ["-o", str(Path(name) / "report.html")] if command == "report" else []
            seconds, peak = measured([command, str(results), *output])
            print(f"timelens {command:8}{seconds:8.1f} CPU s{peak / 2**20:8.0f} MB", flush=True)
    return 0


def write(path: Path, rows: int) -> None:
    """Answers that are near the truth, more or less, to ``rows`` queries."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            start = rng.uniform(0, 20)
            end = start + rng.uniform(1, 10)
            a = max(0.0, start + rng.gauss(0, 2))
            b = a + rng.uniform(1, 10)
            query = f"{rng.choice(WHO)} {rng.choice(DOES)} {rng.choice(WHAT)} {NEXT[i % len(NEXT)]}"
            key = f"V{i // 5:06}.mp4>>>{query}>>>{json.dumps([[round(start, 1), round(end, 1)]])}"
            answer = f"The event happens in {a:.1f} - {b:.1f} seconds."
            entry = {"timestamps": [[round(a, 1), round(b, 1)]], "answers": answer}
            file.write(json.dumps({key: entry}) + "\n")


def measured(arguments: list[str]) -> tuple[float, float]:
    """Processor seconds and peak bytes of the command ``timelens``."""
    code = "import sys; from timelens_plugins.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"timelens {arguments[0]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0


if __name__ == "__main__":
    raise SystemExit(main())
