"""GLM-4.6V, whose prompts are not shared: prompts against transformers' own processor, and every recipe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from recipe_runs import launch, launch_two, run
from transformers import GenerationConfig, Glm46VProcessor

from timelens_plugins.answers import format_answer, grounding_prompt
from timelens_plugins.cli import main
from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import TimeLensGlm46VProcessor, load_processor
from timelens_plugins.families.load import load_model
from timelens_plugins.families.tiny import build_processor, save_checkpoint
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.inference.vllm.request import vllm_prompts
from timelens_plugins.inspection.made_clip import made_clip
from timelens_plugins.sft.examples import answer_tokens, build_example
from timelens_plugins.sft.scoring import answer_log_probs
from timelens_plugins.synthetic.benchmark import write_benchmark, write_training_set
from timelens_plugins.training.parts import adapter_modules_to_save, set_trainable
from timelens_plugins.video import FrameSampling, VideoClip, sample_frames

QUERY = "person turn a light on"
VIDEO, IMAGE = "<|begin_of_video|><|video|><|end_of_video|>", "<|begin_of_image|><|image|><|end_of_image|>"
SMALL: dict[str, Any] = {"min_tokens": 16, "total_tokens": 400, "max_frames": 24}
LOG = "models of the family glm46v cannot share prompts: share_prefix=False"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the model type that it has in common with GLM-4.1V, and its own processor."""
    folder = save_checkpoint(tmp_path_factory.mktemp("glm"), "glm4v", initializer_range=0.2)
    assert json.loads((folder / "processor_config.json").read_text())["processor_class"] == "Glm46VProcessor"
    return folder


@pytest.fixture(scope="module")
def stock(checkpoint: Path) -> Glm46VProcessor:
    return Glm46VProcessor.from_pretrained(checkpoint)


def of_transformers(stock: Glm46VProcessor, text: str, *clips: VideoClip) -> Any:
    return stock(
        text=[text],
        videos=[clip.frames for clip in clips],
        video_metadata=[clip.metadata() for clip in clips],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )


def whole(path: Path, sampling: FrameSampling) -> VideoClip:
    return sample_frames(path, sampling)


def window(path: Path, sampling: FrameSampling) -> VideoClip:
    return sample_frames(path, sampling, video_start=7.3, video_end=19.9)


def odd(path: Path, sampling: FrameSampling) -> VideoClip:
    return first(sample_frames(path, sampling), 7)


def single(path: Path, sampling: FrameSampling) -> VideoClip:
    return first(sample_frames(path, sampling), 1)


def first(clip: VideoClip, frames: int) -> VideoClip:
    return replace(
        clip, frames=clip.frames[:frames], times=clip.times[:frames], frame_indices=clip.frame_indices[:frames]
    )


@pytest.mark.parametrize("cut", [whole, window, odd, single])
@pytest.mark.parametrize("file", ["3MSZA.mp4", "OHOFG.mp4"])
def test_native_equals_transformers_own_processor(
    file: str, cut: Callable[[Path, FrameSampling], VideoClip], checkpoint: Path, stock: Any, real_data: Path
) -> None:
    """Ids, pixels, grids and token types; times are those of the first frame of each pair, at 30 and 9.533 fps."""
    ours = load_processor(checkpoint, **SMALL)
    clip = cut(real_data / "charades" / file, ours.frame_sampling)
    text = ours.apply_chat_template(ours.grounding_messages(clip, QUERY), add_generation_prompt=True)
    assert text.startswith(f"[gMASK]<sop><|user|>\n{VIDEO}{grounding_prompt(QUERY)}/nothink<|assistant|>")
    found, expected = ours(text=[text], videos=[clip], return_tensors="pt"), of_transformers(stock, text, clip)
    assert set(found) == set(expected)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values_videos", "video_grid_thw"):
        assert torch.equal(found[name], expected[name]), name
    written = re.findall(r"<\|end_of_image\|>(\d+\.\d) seconds", ours.tokenizer.decode(found["input_ids"][0]))
    assert written == [f"{time:.1f}" for time in clip.times[::2]] == [f"{time:.1f}" for time in ours.prompt_times(clip)]


def test_the_protocols_frames(checkpoint: Path, stock: Any, real_data: Path) -> None:
    """By default a clip is sampled and sized as the benchmark does, in the squares of this model's tokens."""
    ours = load_processor(checkpoint)
    sampling = ours.frame_sampling
    assert (sampling.fps, sampling.max_frames, sampling.min_tokens, sampling.total_tokens) == (2.0, 768, 64, 14336)
    assert sampling.pixel_factor == 28
    clip = sample_frames(real_data / "charades" / "OHOFG.mp4", sampling)
    assert len(clip.times) == 70
    inputs = ours.apply_chat_template(
        ours.grounding_messages(str(real_data / "charades" / "OHOFG.mp4"), QUERY),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    text = ours.apply_chat_template(ours.grounding_messages(clip, QUERY), add_generation_prompt=True)
    expected = of_transformers(stock, text, clip)
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["pixel_values_videos"], expected["pixel_values_videos"])
    assert 64 * 35 <= int((inputs["mm_token_type_ids"] == 2).sum()) <= 14336


def test_pairs_as_images_are_what_one_would_write_by_hand(checkpoint: Path, stock: Any, real_data: Path) -> None:
    clip = odd(real_data / "charades" / "OHOFG.mp4", load_processor(checkpoint, **SMALL).frame_sampling)
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.frames[::2]]
    written = "".join(f"{time:.1f}s: {IMAGE}" for time in clip.times[::2])
    expected = stock(text=[f"Watch: {written}When?"], images=pictures, do_resize=False, return_tensors="pt")
    ours = load_processor(checkpoint, "interleaved_timestamp", **SMALL)
    found = ours(text=[f"Watch: {VIDEO}When?"], videos=[clip], return_tensors="pt")
    for name in ("input_ids", "mm_token_type_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("encoding", ["overlay_timestamp", "overlay_index", "text_prefix"])
def test_other_encodings_leave_the_familys_times_out(encoding: str, checkpoint: Path, real_data: Path) -> None:
    ours = load_processor(checkpoint, encoding, **SMALL)
    clip = whole(real_data / "charades" / "OHOFG.mp4", ours.frame_sampling)
    text = ours.tokenizer.decode(ours(text=[f"{VIDEO}When?"], videos=[clip], return_tensors="pt")["input_ids"][0])
    head, frames, tail = re.split(r"<\|begin_of_video\|>|<\|end_of_video\|>", text)
    assert tail == "When?"
    assert head.startswith("From a video of 35.1 seconds, 24 frames") == (encoding == "text_prefix")
    assert re.fullmatch(r"(<\|begin_of_image\|>(<\|image\|>)+<\|end_of_image\|>){12}", frames)


def test_pictures_beside_a_video_are_refused(checkpoint: Path, stock: Any, real_data: Path) -> None:
    """transformers' model takes the tokens of both for each of them; as images they can be told apart."""
    picture = Image.effect_noise((56, 84), 60).convert("RGB")
    ours = load_processor(checkpoint, **SMALL)
    clip = single(real_data / "charades" / "3MSZA.mp4", ours.frame_sampling)
    with pytest.raises(ValueError, match="cannot see pictures and videos in one call"):
        ours(text=[f"{IMAGE}{VIDEO}"], images=[picture], videos=[clip])
    model, _ = load_model(checkpoint, processor=ours, dtype=torch.float32)
    ours.configure(encoding="interleaved_index")
    both = ours(text=[f"{IMAGE}{VIDEO}"], images=[picture], videos=[clip], return_tensors="pt")
    assert len(both["image_grid_thw"]) == 2
    model(**both)
    both = stock(
        text=[f"{IMAGE}{VIDEO}"],
        images=[picture],
        videos=[clip.frames],
        video_metadata=[clip.metadata()],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    with pytest.raises(ValueError, match="features and image tokens do not match"):
        model(**both)


def test_a_processor_that_writes_other_times_is_refused_before_the_model_loads(
    checkpoint: Path, tmp_path: Path
) -> None:
    """GLM-4.1V has the same model type, and writes whole seconds."""
    for file in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_text((checkpoint / file).read_text().replace("Glm46VProcessor", "Glm4vProcessor"))
    for encoding in (None, "native"):
        with pytest.raises(ValueError, match="names transformers' Glm4vProcessor; models of type 'glm4v' are known"):
            load_model(tmp_path, encoding)
    for file in ("processor_config.json", "tokenizer_config.json"):
        content = json.loads((tmp_path / file).read_text())
        content.pop("processor_class", None)
        (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names no processor class, for which transformers takes Glm4vProcessor"):
        load_model(tmp_path)


def test_a_turn_ends_where_the_next_begins(checkpoint: Path) -> None:
    """This family's template ends no turn: what is learned is the token that its models stop at."""
    model, processor = load_model(checkpoint)
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "When?"}]}]
    answer = format_answer([(1.0, 2.5)])
    ids = answer_tokens(processor, messages, answer)
    assert processor.tokenizer.decode(ids) == f"\n{answer}<|user|>"
    assert int(ids[-1]) in model.generation_config.eos_token_id


def test_trained_parts(checkpoint: Path) -> None:
    model, _ = load_model(checkpoint)
    assert adapter_modules_to_save(model) == ["merger", "downsample"]
    parts = set_trainable(model, "merger")
    tower = model.model.visual
    assert parts.trained["merger"] == sum(
        p.numel() for part in (tower.merger, tower.downsample) for p in part.parameters()
    )
    assert parts.trained["vision"] == 0


def test_log_probs_of_queries_equal_those_of_single_rows(checkpoint: Path, stock: Any, real_data: Path) -> None:
    """Conversations of unequal length in one padded batch against transformers' own call for each, in fp64."""
    model, processor = load_model(checkpoint, dtype=torch.float64, **SMALL)
    path = real_data / "charades" / "OHOFG.mp4"
    clip = sample_frames(path, processor.frame_sampling)
    moments: list[dict[str, Any]] = [
        {"id": query, "spans": [span], "prompt": processor.grounding_messages(str(path), query)}
        for query, span in ((QUERY, (1.0, 7.5)), ("a", (3.0, 12.0)), ("person puts a book on a shelf", (20.0, 31.0)))
    ]
    example = build_example(processor, load_clip(processor, clip), 0, moments)
    assert example is not None
    found = answer_log_probs(model, [example.tree], share_prefix=False)
    expected = []
    for moment in moments:
        asked = processor.apply_chat_template(moment["prompt"], add_generation_prompt=True)
        reply = f"\n{format_answer(moment['spans'])}<|user|>"
        inputs = of_transformers(stock, asked + reply, clip)
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"].double()
        n = len(stock.tokenizer(reply)["input_ids"])
        log_probs = model(**inputs).logits[0, -n - 1 : -1].log_softmax(-1)
        expected.append(log_probs.gather(-1, inputs["input_ids"][0, -n:, None])[:, 0])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("encoding", ["native", "interleaved_timestamp"])
def test_answers_are_those_of_generate(encoding: str, checkpoint: Path, stock: Any, real_data: Path) -> None:
    model, processor = load_model(checkpoint, encoding, dtype=torch.float32, **SMALL)
    path = str(real_data / "charades" / "3MSZA.mp4")
    config = GenerationConfig(
        max_new_tokens=10, do_sample=False, eos_token_id=model.generation_config.eos_token_id, pad_token_id=0
    )
    texts = [grounding_prompt(QUERY), "What is seen?"]
    answers = dict(VideoAnswerer(model, processor, config).answer([Question(path, text) for text in texts]))
    clip = sample_frames(path, processor.frame_sampling)
    for index, question in enumerate(texts):
        parts = [{"type": "video"}, {"type": "text", "text": processor.time_encoding.preamble + question}]
        chat = [{"role": "user", "content": parts}]
        text = stock.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False)
        if encoding == "native":
            inputs = of_transformers(stock, text, clip)
        else:
            written = "".join(f"{time:.1f}s: {IMAGE}" for time in clip.times[::2])
            pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.frames[::2]]
            inputs = stock(text=[text.replace(VIDEO, written)], images=pictures, do_resize=False, return_tensors="pt")
        output = model.generate(**inputs, generation_config=config)[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[operator]
        found = answers[index].token_ids
        assert found is not None
        assert list(found[0]) == output[: len(found[0])]
        assert not any(output[len(found[0]) :]), "nothing but padding follows"
    assert len({answer.token_ids for answer in answers.values()}) == 2


def test_no_more_answers_at_a_time_than_asked_for(
    checkpoint: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a copy of the prompt: what fits the memory is the user's to say on this road, too."""
    model, processor = load_model(checkpoint, dtype=torch.float32, **SMALL)
    config = GenerationConfig(
        max_new_tokens=4, do_sample=True, eos_token_id=model.generation_config.eos_token_id, pad_token_id=0
    )
    rows: list[int] = []
    generate: Any = model.generate
    monkeypatch.setattr(model, "generate", lambda **given: rows.append(len(given["input_ids"])) or generate(**given))
    questions = [Question(str(real_data / "charades" / "3MSZA.mp4"), text) for text in ("When?", "Where?")]
    answers = [answer for _, answer in VideoAnswerer(model, processor, config, samples=5, max_rows=2).answer(questions)]
    assert [len(answer.texts) for answer in answers] == [5, 5]
    assert rows == [2, 2, 1] * 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data"), {"charades": 4}, seed=4, size=64, progress=False)


def lmms_eval(checkpoint: Path, benchmark: Path, output: Path) -> list[dict[str, Any]]:
    """Samples of ``lmms-eval --model timelens`` at the protocol's frame rate."""
    arguments = f"pretrained={checkpoint},device=cpu,total_tokens=256"
    command = ["-m", "lmms_eval", "--model", "timelens", "--model_args", arguments, "--tasks", "timelens_bench"]
    more = ["--log_samples", "--output_path", str(output), "--gen_kwargs", "max_new_tokens=8"]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TIMELENS_BENCH_DIR": str(benchmark)}
    done = subprocess.run(
        [sys.executable, *command, *more], env=os.environ | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-9000:]
    assert LOG in done.stdout + done.stderr
    return [json.loads(line) for file in output.rglob("*_samples_*.jsonl") for line in file.read_text().splitlines()]


def test_sft_difficulty_rlvr_and_evaluation(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What is saved is loaded by the next, and the last through lmms-eval's own command."""
    changes: dict[str, Any] = {"annotations": str(data), "synthetic_folder": str(tmp_path / "synthetic")}
    sft, rlvr, rows = tmp_path / "sft", tmp_path / "rlvr", tmp_path / "rows.jsonl"
    caplog.set_level("INFO")
    run("sft", model_name_or_path="synthetic:glm46v", output_dir=str(sft), max_steps=2, **changes)
    assert run("difficulty", model_name_or_path=str(sft), output=str(rows), samples=2, max_new_tokens=6, **changes) == 0
    assert len(rows.read_text().splitlines()) == sum(
        len(json.loads(line)["events"]) for line in data.read_text().splitlines()
    )
    sizes: dict[str, Any] = {"max_completion_length": 8, "num_generations": 2, "per_device_train_batch_size": 4}
    run("rlvr", model_name_or_path=str(sft), output_dir=str(rlvr), max_steps=2, **sizes, **changes)
    assert caplog.text.count(LOG) == 3
    assert "self-check passed: plain path and plain log-probs differ by 0.00e+00" in capsys.readouterr().out
    state = json.loads((rlvr / "checkpoint-2" / "trainer_state.json").read_text())
    assert {"reward", "loss", "grad_norm"} <= state["log_history"][0].keys()
    assert type(load_model(rlvr)[1]) is TimeLensGlm46VProcessor
    benchmark = write_benchmark(tmp_path / "benchmark", 1, queries=2, size=64, progress=False)
    assert len(lmms_eval(rlvr, benchmark, tmp_path / "results")) == 6


def settings(name: str, data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    given = {"model_name_or_path": "synthetic:glm46v", "annotations": str(data)}
    small = {"max_completion_length": 6, "num_generations": 2} if name == "rlvr" else {}
    return given | {"synthetic_folder": str(folder / "synthetic")} | small | changes


def losses(folder: Path, steps: int) -> list[tuple[float, ...]]:
    state = json.loads((folder / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    return [(row["loss"], row["grad_norm"]) for row in state["log_history"] if "grad_norm" in row]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the processes that are compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["sft", "rlvr"])
def test_kill_and_resume(name: str, data: Path, tmp_path: Path, one_thread: None) -> None:
    """The losses of an uninterrupted run."""
    given = settings(name, data, tmp_path, max_steps=5, save_steps=1, save_total_limit=9)
    killed, through = tmp_path / "killed", tmp_path / "through"
    killer = str(Path(__file__).with_name("killed_recipe.py"))
    launch(name, killer, name, expect=-signal.SIGKILL, output_dir=killed, **given)
    assert max(path.name for path in killed.glob("checkpoint-*")) == "checkpoint-2"
    for output in (killed, through):
        run(name, output_dir=str(output), **given)
    assert losses(killed, 5) == losses(through, 5)
    assert len(losses(through, 5)) == 5


@pytest.mark.parametrize("name", ["sft", "rlvr"])
def test_two_processes_equal_one(name: str, data: Path, tmp_path: Path, one_thread: None) -> None:
    rows = 2 if name == "sft" else 8
    alike = {"loss_type": "grpo"} if name == "rlvr" else {"train_sampling_strategy": "sequential"}
    given = settings(name, data, tmp_path, max_steps=2, **alike)
    run(name, output_dir=str(tmp_path / "one"), per_device_train_batch_size=rows, **given)
    launch_two(name, output_dir=tmp_path / "two", per_device_train_batch_size=rows // 2, **given)
    one, two = (losses(tmp_path / folder, 2) for folder in ("one", "two"))
    assert two == [pytest.approx(row, rel=2e-3, abs=1e-6) for row in one]


def test_inspect_shows_each_pair_with_its_time(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(real_data / "charades" / "OHOFG.mp4")
    arguments = ["--query", QUERY, "--max-frames", "8", "--min-tokens", "4", "--total-tokens", "100"]
    assert main(["inspect", video, *arguments, "--family", "glm46v"]) == 0
    out = capsys.readouterr().out
    shown = re.findall(r"^  (.*<\|end_of_image\|>.*)$", out, re.MULTILINE)
    assert len(shown) == 4
    rows = re.findall(r"^ +\d+ +\d+, \d+ +([\d.]+), [\d.]+ +(\d+)$", out, re.MULTILINE)
    for line, (time, tokens) in zip(shown, rows, strict=True):
        [(pads, written)] = re.findall(r"<\|begin_of_image\|><\|image\|>×(\d+)<\|end_of_image\|>([\d.]+) seconds", line)
        assert (pads, float(written)) == (tokens, pytest.approx(float(time), abs=0.06))


def test_doctor_knows_it(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert "broken" not in out
    assert "native ids equal those of transformers' own processor" in out
    for change in ("another video", "the order of the frames", "the times of the frames"):
        assert f"{change} changes the logits by" in out


def test_vllm_is_not_claimed(checkpoint: Path) -> None:
    processor = load_processor(checkpoint)
    with pytest.raises(ValueError, match="not known whether vLLM reads the prompts of TimeLensGlm46VProcessor"):
        vllm_prompts(processor, made_clip(processor), [QUERY])


def test_the_tiny_models_are_of_the_classes_own(checkpoint: Path) -> None:
    assert type(build_processor("glm46v")) is Glm46VProcessor
    assert type(load_model(checkpoint)[0]).__name__ == "Glm4vForConditionalGeneration"
