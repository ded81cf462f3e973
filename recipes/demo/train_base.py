"""Train the demo's base model from random weights on one CPU core: it learns to see and to recall, not yet to ground.

Three stages, all on scenes of the ``pretrain`` split drawn on the fly, so that nothing repeats:

1. *alignment*: the visual token of a second is pulled to the embeddings of the words for what the second shows;
2. *recall*: clips of one-second events, the assistant lists them, only their times count in the loss. Clips grow as
   soon as recall works;
3. *events*: recall mixed with the world's real events, start and end, as lists and as short questions.

Two auxiliary losses in the middle of the model teach the halves of a look-up: which second a visual token belongs to,
and what is being asked for. Without them the model stays at guessing for a thousand steps and more.

Usage::

    python recipes/demo/train_base.py OUTPUT [--seed 0] [--steps 2000]

Progress goes to ``OUTPUT/log.jsonl``, the checkpoint to ``OUTPUT/base``. An interrupted run continues when
it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, scaled_dot_product_attention
from tqdm.auto import tqdm
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.atomic import replacing
from timelens_plugins.metrics import chance_levels
from timelens_plugins.spans import pairwise_iou
from timelens_plugins.synthetic.curriculum import RECALL_LEVELS, Curriculum, mixed_scenes
from timelens_plugins.synthetic.grounder import build_grounder, build_grounder_processor, build_grounder_tokenizer
from timelens_plugins.synthetic.lessons import Batch, Lesson, LessonWriter
from timelens_plugins.synthetic.shapes import COLORS, SHAPES
from timelens_plugins.synthetic.world import ACTIONS, Event, Scene, WorldConfig, make_scene

WORDS = (*COLORS, *SHAPES, *ACTIONS)
MIDDLE_LAYER = 1  # its output carries the auxiliary losses; the layers above it match and copy
SAVE_EVERY = 100  # steps
DEV_SCENES = 96  # of the train split: neither drawn in training here nor used to report results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo's base model from random weights on one CPU core.")
    parser.add_argument("output", type=Path, help="folder of the checkpoint, its log and its resume state")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes (default: %(default)s)")
    parser.add_argument("--align-steps", type=int, default=900, help="steps of alignment (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="steps of recall and events (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="clips a step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=2.5e-3, help="peak rate (default: %(default)s)")
    parser.add_argument(
        "--next-level", type=float, default=0.35, help="loss at which clips grow (default: %(default)s)"
    )
    parser.add_argument("--aux", type=float, default=0.3, help="weight of the auxiliary losses (default: %(default)s)")
    parser.add_argument("--evaluate-every", type=int, default=250, help="steps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    return parser.parse_args()


class Run:
    """Model, optimizer, random stream and position in the curriculum: all that an interrupted run must find again."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        args.output.mkdir(parents=True, exist_ok=True)
        self.tokenizer = build_grounder_tokenizer()
        self.writer = LessonWriter(self.tokenizer)
        self.rng = np.random.default_rng([args.seed, 100])
        self.curriculum = Curriculum(self.writer, self.rng)
        self.model = build_grounder(self.tokenizer, seed=args.seed)
        attend_all_frames_at_once(self.model)
        self.model.model.language_model.layers[MIDDLE_LAYER].register_forward_hook(self._keep_middle)
        self.aligned = self.step = self.level = self.level_step = 0
        self.seconds = 0.0
        self.recent: list[float] = []
        tower = self.model.model.visual.parameters()
        self.align_optimizer = torch.optim.AdamW(tower, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
                {"params": [p for p in self.model.parameters() if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=args.lr,
            betas=(0.9, 0.98),
            fused=True,
        )
        self._resume()

    # ---- stages ----------------------------------------------------------------------------------------------------

    def align(self) -> None:
        """Stage 1: the vision tower alone. A word is to be read off a token by its embedding, and little else left."""
        ids = [self.writer.ids(f" {word}")[0] for word in WORDS]
        words = self.model.lm_head.weight[ids].detach()  # tied to the input embeddings
        square = (words**2).sum(-1)
        steps, tower = self.args.align_steps, self.model.model.visual
        for step in self._progress("alignment", self.aligned, steps):
            started = time.process_time()
            set_rate(self.align_optimizer, 3e-3 * min(1, (step + 1) / 20) * (1 - step / steps))
            scenes = mixed_scenes(self.curriculum, self.args.batch, crowded=step >= 0.7 * steps)
            batch = self.writer.collate([self.writer.open(scene) for scene in scenes])
            shown = torch.from_numpy(np.concatenate([visible_words(scene) for scene in scenes]))
            seen = self.model.model.get_video_features(
                batch.pixel_values_videos, batch.video_grid_thw, return_dict=True
            ).pooler_output
            tokens = torch.cat(list(seen))
            scores = tokens @ words.T / square - 0.5
            distance = ((tokens - shown @ words) ** 2).sum(-1).mean() / square.mean()
            loss = binary_cross_entropy_with_logits(8 * scores, shown) + 0.2 * distance
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            self.align_optimizer.step()
            self.align_optimizer.zero_grad()
            self.aligned = step + 1
            self.seconds += time.process_time() - started
            if self.aligned % 100 == 0:
                right = float(((scores > 0) == (shown > 0)).all(-1).float().mean())
                self._log(stage="alignment", step=self.aligned, loss=loss.item(), seconds_fully_read=right)
            if self.aligned % SAVE_EVERY == 0:
                self._save_state()
        self.model.zero_grad(set_to_none=True)

    def teach(self) -> None:
        """Stages 2 and 3: the whole model."""
        args = self.args
        self.model.train()
        for step in self._progress("recall and events", self.step, args.steps):
            started = time.process_time()
            # Constant while the curriculum moves, then linearly down over the last two fifths.
            set_rate(self.optimizer, args.lr * min(1, (step + 1) / 50, 2.5 * (1 - step / args.steps)))
            lessons = self.curriculum.draw(self.level, args.batch)
            loss = answer_loss(self.model, self.writer.collate(lessons))
            stamps, cues = self._halves(lessons)
            (loss + args.aux * (stamps + cues)).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step = step + 1
            self.seconds += time.process_time() - started
            self.recent = [*self.recent[-49:], loss.item()]
            if self.step % 50 == 0:
                self._log(
                    stage="teaching",
                    step=self.step,
                    level=self.level,
                    loss=float(np.mean(self.recent)),
                    stamps=stamps.item(),
                    cues=cues.item(),
                )
            since = self.step - self.level_step
            if self.level < len(RECALL_LEVELS) and since >= 30 and np.mean(self.recent[-20:]) < args.next_level:
                self.level, self.level_step = self.level + 1, self.step
            if self.step % args.evaluate_every == 0 or self.step == args.steps:
                self._log(stage="evaluation", step=self.step, **self.evaluate())
            if self.step % SAVE_EVERY == 0:
                self._save_state()

    def evaluate(self) -> dict[str, float]:
        """mIoU on scenes of the ``train`` split, in the taught forms and in the benchmark's, beside chance."""
        world = WorldConfig()
        scenes = [make_scene([self.args.seed, 7, i], world, split="train") for i in range(DEV_SCENES)]
        pairs = [(scene, scene.events[i % len(scene.events)]) for i, scene in enumerate(scenes)]
        truth = np.array([event.span for _, event in pairs])
        self.model.eval()
        row = {}
        for name, form in (("listed", list_cue), ("asked", question_cue), ("grounded", grounding_cue)):
            ious = pairwise_iou(predict(self.model, self.writer, pairs, form), truth)
            row[f"{name}_miou"], row[f"{name}_r1@0.7"] = float(ious.mean()), float((ious >= 0.7).mean())
        self.model.train()
        levels = chance_levels([[span] for span in truth.tolist()], [scene.duration for scene in scenes])
        row |= {rule: level.miou for rule, level in levels.items() if rule in ("best constant span", "random span")}
        return row

    def save(self) -> None:
        """Write the checkpoint, in bfloat16."""
        folder = self.args.output / "base"
        self.model.eval().to(torch.bfloat16).save_pretrained(folder)
        build_grounder_processor(self.tokenizer).save_pretrained(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder}: {size / 1e6:.2f} MB, {self.seconds / 60:.0f} CPU minutes")

    # ---- parts -----------------------------------------------------------------------------------------------------

    def _keep_middle(self, module: Any, inputs: Any, output: Any) -> None:
        self._middle = output[0] if isinstance(output, tuple) else output

    def _halves(self, lessons: list[Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of reading, in the middle of the model, each second's number and each cue's words."""
        states = self.model.model.language_model.norm(self._middle)

        def loss(targets: list[tuple[int, int, int]]) -> torch.Tensor:
            rows, positions, ids = (list(column) for column in zip(*targets, strict=True))
            return cross_entropy(self.model.lm_head(states[rows, positions]), torch.tensor(ids))

        stamps = [(row, at, number) for row, lesson in enumerate(lessons) for at, number in lesson.stamps]
        cues = [(row, at, word) for row, lesson in enumerate(lessons) for at, words in lesson.cues for word in words]
        return loss(stamps), loss(cues)

    def _progress(self, name: str, first: int, last: int) -> Any:
        return tqdm(range(first, last), desc=name, initial=first, total=last)

    def _log(self, **row: Any) -> None:
        row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        line = json.dumps(row | {"cpu_seconds": round(self.seconds)})
        tqdm.write(line)
        with (self.args.output / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def _arguments(self) -> dict[str, Any]:
        free = ("output", "threads", "evaluate_every")
        return {key: value for key, value in vars(self.args).items() if key not in free}

    def _save_state(self) -> None:
        path = self.args.output / "state.pt"
        counters = {name: getattr(self, name) for name in ("aligned", "step", "level", "level_step", "seconds")}
        state = {
            "arguments": self._arguments(),
            "counters": counters,
            "recent": self.recent,
            "model": self.model.state_dict(),
            "align_optimizer": self.align_optimizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": json.dumps(self.rng.bit_generator.state),
        }
        with replacing(path) as part:
            torch.save(state, part)

    def _resume(self) -> None:
        path = self.args.output / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["arguments"] != self._arguments():
            raise SystemExit(f"{path} is of a run with other arguments: {state['arguments']}; choose another folder")
        self.model.load_state_dict(state["model"])
        self.align_optimizer.load_state_dict(state["align_optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.recent = state["recent"]
        for name, value in state["counters"].items():
            setattr(self, name, value)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def visible_words(scene: Scene) -> np.ndarray:
    """Which of WORDS hold in each second of a scene, shape ``(seconds, words)``."""
    seen = np.zeros((int(scene.duration), len(WORDS)), np.float32)
    for actor in scene.actors:
        for word in (actor.color, actor.shape):
            seen[int(actor.visible.start) : int(actor.visible.end), WORDS.index(word)] = 1
        if actor.action and actor.acting:
            seen[int(actor.acting.start) : int(actor.acting.end), WORDS.index(actor.action)] = 1
    return seen


def attend_all_frames_at_once(model: Qwen3VLForConditionalGeneration) -> None:
    """Replace the loop over frames in the vision tower's attention: here all frames have equally many patches."""

    def forward(
        self: Any, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor, position_embeddings: Any = None, **_: Any
    ) -> torch.Tensor:
        patches, frames = hidden_states.shape[0], len(cu_seqlens) - 1
        q, k, v = self.qkv(hidden_states).reshape(patches, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (x.reshape(frames, patches // frames, self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        mixed = scaled_dot_product_attention(q, k, v, scale=self.scaling)
        return self.proj(mixed.transpose(1, 2).reshape(patches, -1))

    for block in model.model.visual.blocks:
        block.attn.forward = MethodType(forward, block.attn)


def hidden_states(model: Qwen3VLForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Last hidden states of shape ``(lessons, tokens, hidden)``."""
    return model.model(
        input_ids=batch.input_ids,
        pixel_values_videos=batch.pixel_values_videos,
        video_grid_thw=batch.video_grid_thw,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state


def answer_loss(model: Qwen3VLForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Weighted mean cross-entropy of the labelled tokens."""
    states, labels, weights = hidden_states(model, batch)[:, :-1], batch.labels[:, 1:], batch.weights[:, 1:]
    chosen = labels != -100
    each = cross_entropy(model.lm_head(states[chosen]), labels[chosen], reduction="none")
    return (each * weights[chosen]).sum() / weights[chosen].sum()


def list_cue(writer: LessonWriter, lesson: Lesson, event: Event) -> str:
    """Begin a list with an event; returns what stands between start and end."""
    writer.ask(lesson, "List the events.")
    lesson.say(writer.ids(" " + event.query.split(" ", 1)[1] + " "))
    return " - "


def question_cue(writer: LessonWriter, lesson: Lesson, event: Event) -> str:
    """Begin an answer to a short question; returns what stands between start and end."""
    writer.ask(lesson, f"When? {event.query}")
    return " - "


def grounding_cue(writer: LessonWriter, lesson: Lesson, event: Event) -> str:
    """Begin an answer in the benchmark's form; returns what stands between start and end."""
    writer.ask(lesson, GROUNDING_PROMPT.format(query=event.query))
    lesson.say(writer.ids("The event happens in "))
    return ".0 - "


@torch.no_grad()
def predict(
    model: Qwen3VLForConditionalGeneration, writer: LessonWriter, pairs: list[tuple[Scene, Event]], cue: Any
) -> np.ndarray:
    """Most likely start and end, shape ``(pairs, 2)``, NaN where they are no span.

    The words of the answer are given and only numbers allowed, so this tests looking up, not the format.
    """
    numbers = torch.tensor([writer.ids(str(n))[0] for n in range(100)])
    found = []
    for first in range(0, len(pairs), 32):
        lessons = [writer.open(scene) for scene, _ in pairs[first : first + 32]]
        between = [cue(writer, x, event) for x, (_, event) in zip(lessons, pairs[first:], strict=False)]
        times = []
        for _ in range(2):
            states = hidden_states(model, writer.collate(lessons))
            last = torch.tensor([len(lesson.input_ids) - 1 for lesson in lessons])
            best = model.lm_head(states[torch.arange(len(lessons)), last])[:, numbers].argmax(-1)
            times.append(best.numpy())
            for lesson, number, text in zip(lessons, numbers[best].tolist(), between, strict=True):
                lesson.say([number, *writer.ids(text)])
        found.append(np.stack(times, -1).astype(float))
    spans = np.concatenate(found)
    spans[spans[:, 0] >= spans[:, 1]] = np.nan
    return spans


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    run = Run(args)
    run.align()
    run.teach()
    run.save()


if __name__ == "__main__":
    main()
