"""How well `timelens audit` finds label errors that were put in on purpose, kind by kind.

    python benchmarks/audit.py                      # synthetic clips, 10 % of each kind, other clips than calibration's
    python benchmarks/audit.py --model CHECKPOINT        # and what a model says: eight answers to each question
    python benchmarks/audit.py --calibrate          # measure again what each sign is worth, and write it down

The clips are those of the synthetic world, whose labels are exact. A moment counts as found where a finding of the
right kind has a score of at least --threshold. Precision is the share of such findings that are right; recall the share
of the errors that were found. "Any kind" asks only whether a wrong moment was found wrong.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from timelens_plugins.difficulty.estimate import Answering
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.quality.asking import ModelChoice
from timelens_plugins.quality.auditing import findings_of, picture_evidence, wording_evidence
from timelens_plugins.quality.calibration import BANDS, FILE, measure
from timelens_plugins.quality.findings import KINDS, Evidence, Finding
from timelens_plugins.quality.lengths import length_evidence
from timelens_plugins.quality.pairs import pair_evidence
from timelens_plugins.quality.questioning import question_model
from timelens_plugins.quality.seeding import seed_errors
from timelens_plugins.synthetic.benchmark import write_training_set

CALIBRATION_SEED, TEST_SEED = 71, 72
OPTIONS = {"dtype": "float32", "device": "cpu", "fps": 2.0, "min_tokens": 1, "total_tokens": 1}  # as the demo's


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=120, help="of each of the three kinds (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.1, help="share of moments with each kind of error")
    parser.add_argument("--threshold", type=float, default=0.5, help="score from which a moment counts as found")
    parser.add_argument("--repeats", type=int, default=5, help="errors seeded so many times in the same clips")
    parser.add_argument("--data", type=Path, help="folder to keep the clips in, and to find them again")
    parser.add_argument("--model", help="checkpoint that is asked, too, such as the demo's")
    parser.add_argument("--calibrate", action="store_true", help="write calibration.json")
    args = parser.parse_args()
    seed = CALIBRATION_SEED if args.calibrate else TEST_SEED
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.data or Path(temporary)) / str(seed)
        file = write_training_set(folder, args.clips, seed=seed, size=64)
        moments = list(load_moments(file, video_root=folder / "videos"))
        runs = [seed_errors(moments, args.rate, seed=repeat) for repeat in range(args.repeats)]
        evidence = [collect(seeded) for seeded, _ in runs]
        if args.model:
            for run, (seeded, _) in enumerate(runs):
                evidence[run] += said_of(seeded, args.model, folder / f"answers-{run}")
    if args.calibrate:
        # Ids repeat from run to run, so each run's are told apart before they are counted together.
        together = [renamed(sign, run) for run, signs in enumerate(evidence) for sign in signs]
        wrong = {f"{run}/{name}": kind for run, (_, made) in enumerate(runs) for name, kind in made.items()}
        kept = json.loads(FILE.read_text(encoding="utf-8"))
        moments_in_all = sum(len(seeded) for seeded, _ in runs)
        measured = {"moments": moments_in_all, "signals": kept["signals"] | measure(together, wrong)}
        table = {"bands": list(BANDS)} | measured | {"read": kept["read"]}
        FILE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {FILE.name}: {', '.join(table['signals'])}")
        return 0
    findings = [findings_of(seeded, signs) for (seeded, _), signs in zip(runs, evidence, strict=True)]
    print(f"{len(moments):,} moments, errors seeded {args.repeats} times, scores from {args.threshold}")
    print(f"{'kind':12}{'seeded':>8}{'found':>8}{'right':>8}{'precision':>11}{'recall':>8}")
    for kind in (*KINDS, None):
        print(row(kind, [made for _, made in runs], findings, args.threshold))
    print(reliability([made for _, made in runs], findings))
    return 0


def collect(moments: list[Moment]) -> list[Evidence]:
    """All signs that need no answers."""
    seen, unreadable = picture_evidence(moments)
    if unreadable:
        raise SystemExit(f"cannot read {unreadable}")
    return [*pair_evidence(moments), *length_evidence(moments), *wording_evidence(moments), *seen]


def said_of(moments: list[Moment], checkpoint: str, folder: Path) -> list[Evidence]:
    """Signs in eight sampled answers to where each moment is, and to whether it is there."""
    answering = Answering(samples=8, max_new_tokens=32)
    asked = question_model(moments, ModelChoice("transformers", checkpoint, OPTIONS), folder, answering=answering)
    print("\n".join(asked.notes), flush=True)
    return list(asked.evidence)


def renamed(sign: Evidence, run: int) -> Evidence:
    return Evidence(f"{run}/{sign.moment}", sign.kind, sign.signal, sign.strength, sign.reason)


def row(kind: str | None, wrong: list[dict[str, str]], findings: list[list[Finding]], threshold: float) -> str:
    seeded = found = right = 0
    for made, run in zip(wrong, findings, strict=True):
        errors = {name for name, k in made.items() if kind in (k, None)}
        flagged = {f.moment for f in run if f.score >= threshold and kind in (f.kind, None)}
        seeded += len(errors)
        found += len(flagged)
        right += len(flagged & errors)
    precision, recall = right / max(found, 1), right / max(seeded, 1)
    return f"{kind or 'any kind':12}{seeded:8}{found:8}{right:8}{precision:11.3f}{recall:8.3f}"


def reliability(wrong: list[dict[str, str]], findings: list[list[Finding]]) -> str:
    """Whether scores are chances: mean score of findings in each fifth of the scale, and the share of right ones."""
    lines = ["score        findings   mean score   right"]
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        found = [
            (f.score, made.get(f.moment) == f.kind)
            for made, run in zip(wrong, findings, strict=True)
            for f in run
            if low <= f.score < low + 0.2 or (low == 0.8 and f.score >= 1.0)
        ]
        if found:
            mean, right = (sum(values) / len(found) for values in zip(*found, strict=True))
            lines.append(f"{low:.1f} - {low + 0.2:.1f}   {len(found):9}   {mean:10.3f}   {right:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    started = time.process_time()
    status = main()
    print(f"{time.process_time() - started:.0f} CPU s")
    raise SystemExit(status)
