"""The demo from its world to its report.

Every stage is a command that a user would type, with paths and sizes as flags: the recipes on their ``demo_*.yaml``,
and ``lmms-eval`` on a benchmark in TimeLens-Bench's layout. The only toy is the data.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from timelens_plugins.demo.command import run_command
from timelens_plugins.demo.settings import DemoSettings
from timelens_plugins.demo.stages import Stages
from timelens_plugins.demo.table import Summary, summarise
from timelens_plugins.locations import shipped_folder
from timelens_plugins.report import StripBudget, write_report
from timelens_plugins.results import load_runs
from timelens_plugins.synthetic.benchmark import write_benchmark, write_training_set
from timelens_plugins.synthetic.grounder import BASE_CHECKPOINT

__all__ = ["Demo", "run_demo"]

BASE, SFT, RLVR = "base model", "after SFT", "after RLVR"
"""Names of the evaluated stages in the table."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_POOL_SEED = 10_000  # added to the seed: the clips of reinforcement learning are others than those of SFT


def run_demo(
    output: Path,
    settings: DemoSettings | None = None,
    *,
    seed: int = 0,
    processes: int | None = None,
    said: Callable[[str], None] = print,
) -> Summary:
    """Run all stages and print the table; what an earlier, interrupted run finished is kept.

    Args:
        output: folder for everything.
        settings: sizes; default: :class:`DemoSettings`.
        seed: of the clips, the order of training and the sampled answers.
        processes: that training is spread over, on this machine's CPU; the batch stays the same, and what is drawn.
            Default: 2, where there are two processors.
        said: takes lines for the reader.

    Raises:
        ValueError: ``output`` holds a run with other settings, or other things; its path, or ``processes``, cannot be
            used.
        CommandError: a stage failed; the message has the end of its output.
    """
    demo = Demo(output, settings or DemoSettings(), seed, processes, said)
    summary = demo.run()
    said(f"\n{summary.table()}\n\n{summary.outcome()}\nreport: {demo.output / 'report.html'}")
    return summary


class Demo:
    """One run in one folder; arguments as :func:`run_demo`'s."""

    def __init__(
        self, output: Path, settings: DemoSettings, seed: int, processes: int | None, said: Callable[[str], None]
    ) -> None:
        self.output, self.settings, self.seed, self.said = output, settings, seed, said
        if unusable := set(str(output)) & set(",{}[]\"'"):
            raise ValueError(f"{output}: lmms-eval cannot read a path with {' '.join(sorted(unusable))} in it")
        self.processes = _processors() if processes is None else processes
        for recipe in ("sft", "rlvr"):
            self._batch(recipe)  # refuses a number of processes before any work
        self.stages = Stages(output / "stages", {**asdict(settings), "seed": seed})
        self.benchmark = output / "benchmark"
        self.training, self.pool = output / "training", output / "pool"
        self.difficulty = output / "difficulty.jsonl"
        self.sft, self.rlvr = output / "sft", output / "rlvr"

    def run(self) -> Summary:
        """All stages in order."""
        stages = self.stages
        self.until_difficulty()
        stages.run(RLVR, lambda: self.reinforce(self.rlvr, "--difficulty_file", self.difficulty), self.said)
        stages.run("evaluate RLVR", lambda: self.evaluate(self.rlvr, "rlvr"), self.said)
        results = {BASE: "base", SFT: "sft", RLVR: "rlvr"}
        folders = {name: self.results(short) for name, short in results.items()}
        summary = summarise(folders, stages.costs, self.rlvr)
        (self.output / "demo.json").write_text(json.dumps(summary.as_json(), indent=1) + "\n", encoding="utf-8")
        stages.run("report", self.report, self.said, product=self.output / "report.html")
        return summary

    def until_difficulty(self) -> None:
        """The stages before reinforcement learning."""
        stages, s = self.stages, self.settings
        stages.run("clips", self.make_clips, self.said)
        stages.run("evaluate base model", lambda: self.evaluate(BASE_CHECKPOINT, "base"), self.said)
        stages.run(SFT, lambda: self.fine_tune(self.sft, "--max_steps", s.sft_steps), self.said)
        stages.run("evaluate SFT", lambda: self.evaluate(self.sft, "sft"), self.said)
        stages.run("difficulty", lambda: self.estimate(self.difficulty, s.samples), self.said)

    def make_clips(self) -> None:
        """The benchmark, and two disjoint training sets."""
        s = self.settings
        processes = _processors()  # clips are the same for any number
        write_benchmark(self.benchmark, moments=s.moments, seed=self.seed, processes=processes)
        write_training_set(self.training, s.sft_clips, seed=self.seed, size=64, processes=processes)
        write_training_set(self.pool, s.rl_clips, seed=self.seed + _POOL_SEED, size=64, processes=processes)

    def fine_tune(self, target: Path, *flags: str | int | Path) -> None:
        """SFT from the base model; continues where it was killed."""
        data = ("--annotations", self.training / "timelens-100k.jsonl", "--output_dir", target)
        self._launch("sft", *data, *self._batch("sft"), "--seed", self.seed, *flags)

    def estimate(self, target: Path, samples: int) -> None:
        """How hard the pool is for the fine-tuned model."""
        data = ("--annotations", self.pool / "timelens-100k.jsonl", "--output", target)
        flags = ("--model_name_or_path", self.sft, *data, "--samples", samples, "--seed", self.seed)
        self._launch("difficulty", *flags, processes=_processors())  # rows are the same for any number

    def reinforce(self, target: Path, *flags: str | int | Path) -> None:
        """RLVR from the fine-tuned model, on the pool; continues where it was killed."""
        data = ("--annotations", self.pool / "timelens-100k.jsonl", "--output_dir", target)
        sizes = ("--max_steps", self.settings.rl_steps, "--save_steps", self.settings.rl_save_steps)
        model = ("--model_name_or_path", self.sft)
        self._launch("rlvr", *model, *data, *self._batch("rlvr"), *sizes, "--seed", self.seed, *flags)

    def evaluate(self, checkpoint: Path, name: str) -> None:
        """A checkpoint on the benchmark by the real command; answers of a killed run are kept."""
        shutil.rmtree(self.results(name), ignore_errors=True)
        arguments = {
            "pretrained": checkpoint,
            "device": "cpu",
            "journal": self.output / "journal" / name,
            **{key: _settings("sft")[key] for key in ("fps", "min_tokens", "total_tokens")},  # as it was trained
        }
        command = [
            str(Path(sys.executable).with_name("lmms-eval")),
            *("--model", "timelens", "--model_args", ",".join(f"{k}={v}" for k, v in arguments.items())),
            *("--tasks", "timelens_bench", "--batch_size", "8", "--gen_kwargs", "max_new_tokens=32"),
            *("--log_samples", "--output_path", str(self.results(name))),
        ]
        environment = _ONE_THREAD | {"TIMELENS_BENCH_DIR": str(self.benchmark)}
        self._run(command, f"evaluate {name}", environment, bars="Answering")

    def results(self, name: str) -> Path:
        """Folder of lmms-eval's results."""
        return self.output / "results" / name

    def report(self) -> None:
        """The three evaluations side by side, and the curves of both trainings."""
        names = {BASE: "base", SFT: "sft", RLVR: "rlvr"}
        write_report(
            load_runs([self.results(short) for short in names.values()], list(names)),
            self.output / "report.html",
            videos=[self.benchmark / "videos"],
            training={"RLVR": self.rlvr},
            strips=StripBudget(clips=40),
            title="timelens demo",
        )

    def _batch(self, recipe: str) -> tuple[str | int, ...]:
        """Flags for the batch of the configuration, on this run's processes."""
        name = "per_device_train_batch_size"
        rows = _settings(recipe)[name]
        if self.processes < 1 or rows % self.processes:
            raise ValueError(f"{self.processes} processes cannot share the {rows} rows of a step of {recipe}")
        backend = ("--ddp_backend", "gloo") if self.processes > 1 else ()
        return f"--{name}", rows // self.processes, *backend

    def _launch(self, recipe: str, *flags: str | int | float | Path, processes: int | None = None) -> None:
        processes = processes or self.processes
        several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        command = [
            *(sys.executable, *(several if processes > 1 else ())),
            *(str(shipped_folder("recipes") / f"{recipe}.py"), "--config", str(_configuration(recipe))),
            *map(str, flags),
        ]
        self._run(command, recipe, _ONE_THREAD, bars=r"^(?!Loading weights|Writing model|Map)")

    def _run(self, command: list[str], label: str, environment: dict[str, str], bars: str) -> None:
        log = self.output / "logs" / f"{label.replace(' ', '_')}.log"
        run_command(command, log, label=label, environment=environment, bars=bars)


def _processors() -> int:
    """What the demo makes use of."""
    return min(2, os.cpu_count() or 1)


def _configuration(recipe: str) -> Path:
    return shipped_folder("recipes") / "configs" / f"demo_{recipe}.yaml"


def _settings(recipe: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(_configuration(recipe).read_text(encoding="utf-8"))
    return settings
