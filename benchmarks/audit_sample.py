"""A sample of an audit's findings to read by eye, the same for the same seed.

    timelens audit charades_sta_test.json -o charades.jsonl
    timelens audit val_2.json -o activitynet.jsonl
    python benchmarks/audit_sample.py charades.jsonl activitynet.jsonl --per-kind 100 --seed 0

Findings of a kind are drawn alike from all files, as far as these have them, whatever their scores. Printed are a
number, the score, the query with its spans, the strongest evidence, and the queries that it names.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from timelens_plugins.quality.auditing import read_findings
from timelens_plugins.quality.findings import KINDS, Finding


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("findings", nargs="+", type=Path, metavar="FINDINGS.jsonl", help="that timelens audit -o wrote")
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    files = {path.stem: read_findings(path) for path in args.findings}
    for kind in KINDS:
        of_kind = {name: [f for f in found if f.kind == kind] for name, found in files.items()}
        for number, (name, finding) in enumerate(drawn(of_kind, args.per_kind, args.seed), 1):
            print(f"{kind} {number:3} {name} {line(finding)}")
    return 0


def drawn(files: dict[str, list[Finding]], wanted: int, seed: int) -> list[tuple[str, Finding]]:
    """The same number from each file; what one lacks, the others give."""
    rng = random.Random(seed)
    shuffled = {name: sorted(found, key=lambda f: (f.moment, f.score)) for name, found in files.items()}
    for found in shuffled.values():
        rng.shuffle(found)
    chosen: list[tuple[str, Finding]] = []
    for turn in range(wanted):
        chosen += [(name, found[turn]) for name, found in shuffled.items() if turn < len(found)]
    return sorted(chosen[:wanted], key=lambda item: item[0])


def line(finding: Finding) -> str:
    spans = ", ".join(f"{a:g} - {b:g}" for a, b in finding.spans)
    return f"{finding.score:.2f} {finding.query!r} [{spans} s] {finding.evidence[0].reason}"


if __name__ == "__main__":
    raise SystemExit(main())
