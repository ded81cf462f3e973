"""Does cleaning labels help? The demo's fine-tuning on exact labels, on labels with errors, and on audited ones.

    python benchmarks/cleaning.py --seeds 1 2 3 --output build/cleaning

For each seed: the demo's training clips with their exact labels (*clean*), with errors put in (*noisy*), and what is
left of these after an audit without a model. *dropped*: moments with a finding of a score of at least --threshold are
left out; *mended*: the same, but an inaccurate span is replaced where a sign says by what. *known errors dropped*
leaves out what is wrong, as if the audit were perfect. All train for the same number of steps from the demo's base
model, by its recipe, and answer 300 held-out moments with exact labels greedily, official reading. All in one process.

--noise says what is put in: ``all`` puts each of the five kinds into one moment in ten, a kind's name that kind alone
into --rate of the moments. Interrupted, the same command continues; --minutes stops it in between, with status 3.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import yaml

from timelens_plugins.demo import SIZES
from timelens_plugins.demo.story import Demo
from timelens_plugins.demo.table import READING
from timelens_plugins.difficulty.estimate import Answering, engine_settings, estimate_difficulty
from timelens_plugins.locations import shipped_folder
from timelens_plugins.metrics import Interval, Sample, evaluate, paired_difference
from timelens_plugins.moments import Moment, load_moments, save_moments
from timelens_plugins.quality.asking import ModelChoice, open_engine
from timelens_plugins.quality.auditing import audit
from timelens_plugins.quality.cleaning import clean
from timelens_plugins.quality.findings import KINDS
from timelens_plugins.quality.seeding import seed_errors
from timelens_plugins.recipe import from_dict
from timelens_plugins.results import load_run
from timelens_plugins.synthetic.benchmark import SUBSETS, write_benchmark, write_training_set
from timelens_plugins.synthetic.grounder import BASE_CHECKPOINT

RECIPES = shipped_folder("recipes")
OPTIONS = {"dtype": "float32", "device": "cpu", "fps": 2.0, "min_tokens": 1, "total_tokens": 1}  # as the demo's
CLEAN, NOISY = "clean", "noisy"
ARMS = (NOISY, "dropped", "mended", "known errors dropped")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--noise", nargs="+", default=["all"], choices=["all", *KINDS])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--rate", type=float, default=0.4, help="of a kind that is put in alone (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.5, help="score from which a finding counts")
    parser.add_argument("--size", choices=SIZES, default="default", help="as of timelens demo")
    parser.add_argument("--steps", type=int, help="of each training (default: the demo's)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which nothing new is begun")
    parser.add_argument("--output", type=Path, default=Path("build/cleaning"))
    args = parser.parse_args()
    experiment = Experiment(args)
    for seed in args.seeds:
        experiment.prepare(seed)
        experiment.train(seed, CLEAN)
        for noise in args.noise:
            for arm in args.arms:
                experiment.train(seed, f"{noise} {arm}")
    for noise in args.noise:
        print(experiment.table(noise))
    return 0


class Experiment:
    """Every run by its name; each is a stage of the demo's kind, done once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.until = time.monotonic() + 60 * args.minutes
        size = SIZES[args.size]
        settings = replace(size, rl_clips=1, sft_steps=args.steps or size.sft_steps)  # nothing is reinforced here
        self.demos = {s: Demo(args.output / f"seed-{s}", settings, s, 1, _said) for s in args.seeds}

    def prepare(self, seed: int) -> None:
        """Clips, labels with errors, and what audits leave of them."""
        demo = self.demos[seed]

        def clips() -> None:
            # Half the demo's size: the model sees 32 x 32 pixels of either.
            write_benchmark(demo.benchmark, moments=demo.settings.moments, seed=seed, size=64, progress=False)
            write_training_set(demo.training, demo.settings.sft_clips, seed=seed, size=64, progress=False)

        self._stage(demo, "clips", clips)
        for noise in self.args.noise:
            self._stage(demo, f"labels {noise}", partial(self._labels, demo, noise))

    def train(self, seed: int, name: str) -> None:
        """Fine-tune on one set of labels, and answer the held-out moments."""
        demo = self.demos[seed]
        self._stage(demo, f"train {name}", partial(self._train, demo, name))
        self._stage(demo, f"answer {name}", partial(self._answer, demo, name))

    def _train(self, demo: Demo, name: str) -> None:
        steps = demo.settings.sft_steps
        changes = {
            "model_name_or_path": str(BASE_CHECKPOINT),
            "annotations": str(self._file(demo, name)),
            "video_root": str(demo.training.resolve() / "videos"),
            "output_dir": str(demo.output / _short(name)),
            "max_steps": steps,
            "save_steps": steps,
            "seed": demo.seed,
            "disable_tqdm": True,
        }
        settings = yaml.safe_load((RECIPES / "configs" / "demo_sft.yaml").read_text(encoding="utf-8"))
        sft = runpy.run_path(str(RECIPES / "sft.py"))
        sft["main"](*from_dict(sft["SETTINGS"], settings | changes))

    def _answer(self, demo: Demo, name: str) -> None:
        moments = [
            moment
            for subset in SUBSETS
            for moment in load_moments(
                demo.benchmark / f"{subset}-timelens.json", video_root=demo.benchmark / "videos" / subset
            )
        ]
        choice = ModelChoice("transformers", str(demo.output / _short(name)), OPTIONS)
        answering = Answering(max_new_tokens=32)
        engine = open_engine(choice, answering)
        settings = engine_settings(engine, choice.model, answering)
        estimate_difficulty(engine, moments, self._answers(demo, name), settings, progress=False)

    def _samples(self, demo: Demo, name: str) -> list[Sample]:
        return [case.moment for case in load_run(self._answers(demo, name), name).cases]

    def _answers(self, demo: Demo, name: str) -> Path:
        return demo.output / f"answers-{_short(name)}.jsonl"

    def table(self, noise: str) -> str:
        """A row for each set of labels, over the seeds."""
        names = [CLEAN, *(f"{noise} {arm}" for arm in self.args.arms)]
        seeds = self.args.seeds
        samples = {name: [self._samples(self.demos[s], name) for s in seeds] for name in names}
        lines = [
            f"| {noise} | moments | wrong | {' | '.join(f'seed {s}' for s in seeds)} | mean | against noisy, paired |",
            "|---|---:|---:|" + "---:|" * (len(seeds) + 2),
        ]
        for name in names:
            counts = [self._counts(self.demos[s], name, noise) for s in seeds]
            scores = [evaluate(of_seed, READING) for of_seed in samples[name]]
            cells = [f"{100 * s.miou:.1f} ({_ends(s.intervals['mIoU'], '.1f')})" for s in scores]
            arm = name.removeprefix(f"{noise} ")
            lines.append(
                f"| {arm} | {fmean(n for n, _ in counts):,.0f} | {fmean(wrong / n for n, wrong in counts):.1%} | "
                f"{' | '.join(cells)} | {100 * fmean(s.miou for s in scores):.1f} | "
                f"{'–' if arm == NOISY else _gain(samples[name], samples[f'{noise} {NOISY}'])} |"
            )
        return "\n".join(lines) + "\n"

    def _stage(self, demo: Demo, name: str, work: Callable[[], None]) -> None:
        if time.monotonic() > self.until and not (demo.stages.folder / f"{name}.json").exists():
            print("time is up; the same command continues", flush=True)
            sys.exit(3)
        demo.stages.run(name, work, demo.said)

    def _labels(self, demo: Demo, noise: str) -> None:
        videos = demo.training / "videos"
        moments = list(load_moments(demo.training / "timelens-100k.jsonl", video_root=videos))
        rates = {kind: 0.1 if noise == "all" else self.args.rate for kind in KINDS if noise in ("all", kind)}
        seeded, wrong = seed_errors(moments, rates, seed=demo.seed)
        noisy = self._file(demo, f"{noise} {NOISY}")
        save_moments(moments, self._file(demo, CLEAN))
        save_moments(seeded, noisy)
        found = audit(noisy, videos)
        if found.unreadable:
            raise SystemExit(f"cannot read {found.unreadable}")
        cleaned = {
            "dropped": clean(seeded, found.findings, self.args.threshold, mend=False)[0],
            "mended": clean(seeded, found.findings, self.args.threshold)[0],
            "known errors dropped": [moment for moment in seeded if moment.id not in wrong],
        }
        for arm, left in cleaned.items():
            save_moments(left, self._file(demo, f"{noise} {arm}"))
        (demo.output / f"wrong-{noise}.json").write_text(json.dumps(wrong), encoding="utf-8")

    def _counts(self, demo: Demo, name: str, noise: str) -> tuple[int, int]:
        """Moments of a set, and how many of them are still as they were made wrong."""
        left = list(load_moments(self._file(demo, name)))
        if name == CLEAN:
            return len(left), 0
        wrong = json.loads((demo.output / f"wrong-{noise}.json").read_text(encoding="utf-8"))
        made = {m.id: m for m in load_moments(self._file(demo, f"{noise} {NOISY}"))}
        return len(left), sum(m.id in wrong and _same(m, made[m.id]) for m in left)

    def _file(self, demo: Demo, name: str) -> Path:
        return demo.output / f"labels-{_short(name)}.jsonl"


def _same(a: Moment, b: Moment) -> bool:
    return (a.query, a.spans) == (b.query, b.spans)


def _short(name: str) -> str:
    return name.replace(" ", "_")


def _gain(runs: Sequence[Sequence[Sample]], noisy: Sequence[Sequence[Sample]]) -> str:
    found = [paired_difference(a, b, READING) for a, b in zip(runs, noisy, strict=True)]
    each = "; ".join(f"{100 * d.miou:+.1f} ({_ends(d.intervals['mIoU'], '+.1f')})" for d in found)
    return f"{100 * fmean(d.miou for d in found):+.1f}: {each}"


def _ends(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f"{100 * interval.low:{form}} … {100 * interval.high:{form}}"


def _said(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
