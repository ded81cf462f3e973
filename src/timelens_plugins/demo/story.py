"""The demo from its world to its report.

Every stage is a command that a user would type, with paths and sizes as flags: the recipes on their ``demo_*.yaml``,
and ``lmms-eval`` on a benchmark in TimeLens-Bench's layout. The only toy is the data.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from timelens_plugins.demo.command import run_command
from timelens_plugins.demo.settings import DemoSettings
from timelens_plugins.demo.stages import Stages
from timelens_plugins.demo.table import Summary, summarise
from timelens_plugins.locations import shipped_folder
from timelens_plugins.plateau import Decision, read_reward_log
from timelens_plugins.report import load_runs, write_report
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
    processes: int = 2,
    said: Callable[[str], None] = print,
) -> Summary:
    """Run all stages and print the table; what an earlier, interrupted run finished is kept.

    Args:
        output: folder for everything.
        settings: sizes; default: :class:`DemoSettings`.
        seed: of the clips, the order of training and the sampled answers.
        processes: that training and difficulty are spread over, on this machine's CPU.
        said: takes lines for the reader.

    Raises:
        ValueError: ``output`` holds a run with other settings.
        CommandError: a stage failed; the message has the end of its output.
    """
    demo = Demo(output, settings or DemoSettings(), seed, processes, said)
    summary = demo.run()
    said("")
    said(summary.table())
    said("")
    for line in demo.outcome(summary):
        said(line)
    return summary


class Demo:
    """One run in one folder; arguments as :func:`run_demo`'s."""

    def __init__(
        self, output: Path, settings: DemoSettings, seed: int, processes: int, said: Callable[[str], None]
    ) -> None:
        self.output, self.settings, self.seed, self.processes, self.said = output, settings, seed, processes, said
        self.stages = Stages(output / "stages", {**asdict(settings), "seed": seed, "processes": processes})
        self.benchmark = output / "benchmark"
        self.training, self.pool = output / "training", output / "pool"
        self.difficulty = output / "difficulty.jsonl"
        self.sft, self.rlvr = output / "sft", output / "rlvr"

    def run(self) -> Summary:
        """All stages in order."""
        stages, s = self.stages, self.settings
        stages.run("clips", self.make_clips, self.said)
        stages.run("evaluate base model", lambda: self.evaluate(BASE_CHECKPOINT, "base"), self.said)
        stages.run(SFT, lambda: self.train("sft", self.sft, "--max_steps", s.sft_steps), self.said)
        stages.run("evaluate SFT", lambda: self.evaluate(self.sft, "sft"), self.said)
        stages.run("difficulty", self.estimate, self.said)
        stages.run(RLVR, self.reinforce, self.said)
        stages.run("evaluate RLVR", lambda: self.evaluate(self.rlvr, "rlvr"), self.said)
        results = {BASE: "base", SFT: "sft", RLVR: "rlvr"}
        summary = summarise({name: self.results(short) for name, short in results.items()}, stages.costs)
        (self.output / "demo.json").write_text(json.dumps(summary.as_json(), indent=1) + "\n", encoding="utf-8")
        stages.run("report", self.report, self.said)
        return summary

    def outcome(self, summary: Summary) -> list[str]:
        """What a reader of the table wants to know besides."""
        steps, stop = _stop_of(self.rlvr)
        return [
            summary.gain_line(),
            f"RLVR: {steps} of {self.settings.rl_steps} steps; "
            + (stop if stop is not None else "the reward had no plateau before they ended"),
            f"seconds: {sum(cost.seconds for cost in self.stages.costs.values()):.0f} in all, clips, evaluations, "
            "difficulty and report included"
            + (
                "; * was interrupted, its last start alone" if any(c.starts > 1 for c in summary.costs.values()) else ""
            ),
            f"report: {self.output / 'report.html'}",
        ]

    def make_clips(self) -> None:
        """The benchmark, and two disjoint training sets."""
        s = self.settings
        write_benchmark(self.benchmark, moments=s.moments, seed=self.seed)
        write_training_set(self.training, s.sft_clips, seed=self.seed, size=64)
        write_training_set(self.pool, s.rl_clips, seed=self.seed + _POOL_SEED, size=64)

    def train(self, recipe: str, target: Path, *flags: str | int | Path, annotations: Path | None = None) -> None:
        """A recipe with its demo configuration; continues where it was killed."""
        data = (annotations or self.training) / "timelens-100k.jsonl"
        self._launch(recipe, "--annotations", data, "--output_dir", target, "--seed", self.seed, *flags)

    def estimate(self) -> None:
        """How hard the pool is for the fine-tuned model."""
        flags = ("--model_name_or_path", self.sft, "--annotations", self.pool / "timelens-100k.jsonl")
        more = ("--output", self.difficulty, "--samples", self.settings.samples, "--seed", self.seed)
        self._launch("difficulty", *flags, *more)

    def reinforce(self) -> None:
        """From the fine-tuned model, on the pool."""
        s = self.settings
        self.train(
            "rlvr",
            self.rlvr,
            *("--model_name_or_path", self.sft, "--difficulty_file", self.difficulty),
            *("--per_device_train_batch_size", _PROMPTS * _GENERATIONS // self.processes),
            *("--max_steps", s.rl_steps, "--save_steps", s.rl_save_steps),
            annotations=self.pool,
        )

    def evaluate(self, checkpoint: Path, name: str) -> None:
        """A checkpoint on the benchmark by the real command; answers of a killed run are kept."""
        shutil.rmtree(self.results(name), ignore_errors=True)
        arguments = {"pretrained": checkpoint, "device": "cpu", "journal": self.output / "journal" / name}
        command = [
            str(Path(sys.executable).with_name("lmms-eval")),
            *("--model", "timelens", "--model_args", ",".join(f"{k}={v}" for k, v in arguments.items())),
            *("--tasks", "timelens_bench", "--batch_size", "8", "--gen_kwargs", "max_new_tokens=32"),
            *("--log_samples", "--output_path", str(self.results(name))),
        ]
        environment = _ONE_THREAD | {"TIMELENS_BENCH_DIR": str(self.benchmark)}
        self._run(command, f"evaluate {name}", environment, bars="timelens")

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
            title="timelens demo",
        )

    def _launch(self, recipe: str, *flags: str | int | float | Path) -> None:
        folder = shipped_folder("recipes")
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(self.processes)),
            *(str(folder / f"{recipe}.py"), "--config", str(folder / "configs" / f"demo_{recipe}.yaml")),
            *map(str, flags),
        ]
        self._run(command, recipe, _ONE_THREAD)

    def _run(self, command: list[str], label: str, environment: dict[str, str], bars: str = "") -> None:
        log = self.output / "logs" / f"{label.replace(' ', '_')}.log"
        run_command(command, log, label=label, environment=environment, bars=bars)


_PROMPTS, _GENERATIONS = 16, 8  # of a step of reinforcement learning, whatever the number of processes


def _stop_of(run: Path) -> tuple[int, str | None]:
    """Steps a run of reinforcement learning took, and why it was stopped, if it was."""
    log, state = read_reward_log(run)
    decision = next((e["plateau"] for e in state["log_history"] if "plateau" in e), None)
    return log.steps[-1], None if decision is None else Decision.from_dict(decision).summary()
