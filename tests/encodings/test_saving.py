"""Settings travel with the checkpoint, and programs without this package stop instead of losing the video."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor

from timelens_plugins.encodings import (
    ENCODINGS,
    InterleavedTimestampsMixin,
    TimeLensQwen2_5_VLProcessor,
    TimeLensQwen3VLProcessor,
    load_processor,
)
from timelens_plugins.video import FrameSampling

STOCK = {"qwen3_vl": Qwen3VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}
READY = {"qwen3_vl": TimeLensQwen3VLProcessor, "qwen2_5_vl": TimeLensQwen2_5_VLProcessor}


class OwnProcessor(InterleavedTimestampsMixin, Qwen2_5_VLProcessor):
    """What a user writes for a model of their own."""


def test_a_stock_checkpoint_gets_the_ready_class_and_native(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    processor = load_processor(tiny_checkpoints[family])
    assert type(processor) is READY[family]
    assert processor.encoding == "native"
    assert processor.frame_sampling == FrameSampling(patch_size={"qwen3_vl": 16, "qwen2_5_vl": 14}[family])


@pytest.mark.parametrize("encoding", ENCODINGS, indirect=True)
def test_round_trip(
    family: str, encoding: str, tiny_checkpoints: dict[str, Path], tmp_path: Path, make_clip: Any
) -> None:
    processor = load_processor(
        tiny_checkpoints[family], "interleaved_timestamp", timestamp_format="at {t:.2f} ", fps=4, times="stream"
    ).configure(encoding=encoding)
    processor.save_pretrained(tmp_path)
    prompt, clip = "<|vision_start|><|video_pad|><|vision_end|>", make_clip(2)
    ids = processor(text=prompt, videos=clip)["input_ids"]
    for loaded in (
        load_processor(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
        READY[family].from_pretrained(tmp_path),
    ):
        assert type(loaded) is READY[family]
        assert loaded.encoding == encoding
        assert loaded.frame_sampling == processor.frame_sampling
        assert (loaded.frame_sampling.fps, loaded.frame_sampling.times) == (4, "stream")
        assert loaded.timestamp_format == "at {t:.2f} "
        assert loaded(text=prompt, videos=clip)["input_ids"] == ids
    other = load_processor(tmp_path, "native", fps=1)
    assert (other.encoding, other.frame_sampling.fps, other.frame_sampling.times) == ("native", 1, "stream")
    assert AutoProcessor.from_pretrained(tmp_path, encoding="text_prefix").encoding == "text_prefix"
    assert "encoding" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_own_subclass(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    processor = OwnProcessor.from_pretrained(tiny_checkpoints["qwen2_5_vl"])
    assert processor.encoding == "interleaved_timestamp"
    processor.configure(frame_sampling={"max_frames": 448}).save_pretrained(tmp_path)
    for loaded in (
        load_processor(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
        OwnProcessor.from_pretrained(tmp_path),
    ):
        assert type(loaded) is OwnProcessor
        assert loaded.frame_sampling.max_frames == 448


def test_the_stock_class_loads_a_saved_folder(family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """What vLLM does: it names the stock class."""
    load_processor(tiny_checkpoints[family], "interleaved_timestamp").save_pretrained(tmp_path)
    assert type(STOCK[family].from_pretrained(tmp_path)) is STOCK[family]


_WITHOUT_THE_PACKAGE = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "timelens_plugins":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from transformers import AutoProcessor
for options in ({}, {"trust_remote_code": True}):
    try:
        print("LOADED", type(AutoProcessor.from_pretrained(sys.argv[1], **options)).__name__)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def test_without_this_package_the_saved_folder_fails_clearly(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "saved"
    load_processor(tiny_checkpoints["qwen3_vl"]).save_pretrained(folder)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THE_PACKAGE, str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    plain, trusted = [line for line in done.stdout.splitlines() if "Error" in line or "LOADED" in line][-2:]
    assert "ValueError" in plain
    assert "contains custom code" in plain
    assert "Error" in trusted
    assert "timelens_plugins" in trusted
    signpost = (folder / "timelens_processor.py").read_text()
    assert "pip install 'timelens-plugins[video] @ file:///PATH'" in signpost
    assert "Qwen3VLProcessor, loads this folder as well" in signpost
    compile(signpost, "signpost", "exec")


def test_a_folder_of_the_first_release_loads(family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Its signpost imports a module that has another name now; the class is found by its name."""
    load_processor(tiny_checkpoints[family], "interleaved_index", fps=4).save_pretrained(tmp_path)
    name = READY[family].__name__
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["auto_map"] == {"AutoProcessor": f"timelens_processor.{name}"}
    (tmp_path / "timelens_processor.py").write_text(f"from timelens_plugins.timestamps.processors import {name}\n")
    for loaded in (
        load_processor(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True),
    ):
        assert type(loaded) is READY[family]
        assert (loaded.encoding, loaded.frame_sampling.fps) == ("interleaved_index", 4)


def test_load_processor_refuses_what_it_does_not_know(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_checkpoints["qwen3_vl"]
    with pytest.raises(ValueError, match=r"unknown encoding 'overlay'; known: interleaved_timestamp, .*native"):
        load_processor(folder, "overlay")
    with pytest.raises(ValueError, match=r"unknown setting frames_per_second; known: .*\bfps\b"):
        load_processor(folder, frames_per_second=2)
    with pytest.raises(ValueError, match="patch_size=14, but this model's patch_size is 16"):
        load_processor(folder, patch_size=14)
    with pytest.raises(ValueError, match="fps must be a positive number"):
        load_processor(folder, fps=-1)
    with pytest.raises(ValueError, match="nowhere: neither a folder nor a repository"):
        load_processor(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no config\.json that states a model_type"):
        load_processor(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(
        ValueError, match="no time encodings for model_type 'llava'; known: qwen3_vl, qwen3_vl_moe, qwen2_5_vl"
    ):
        load_processor(tmp_path)


def test_custom_code_of_a_checkpoint_is_never_run(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """As a hub repository with a processor of its own: an error that says so, or the encoding the caller names."""
    load_processor(tiny_checkpoints["qwen2_5_vl"]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((tiny_checkpoints["qwen2_5_vl"] / "config.json").read_text())
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    saved["processor_class"] = "TheirProcessor"
    (tmp_path / "processor_config.json").write_text(json.dumps(saved))
    (tmp_path / "timelens_processor.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ValueError, match=r"TheirProcessor is not known here.*never run.*encoding="):
        load_processor(tmp_path)
    assert type(load_processor(tmp_path, "interleaved_timestamp")) is TimeLensQwen2_5_VLProcessor


NAMING_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def old_layout(checkpoint: Path, folder: Path, **named: str) -> Path:
    """A copy laid out as hub folders of transformers 4: image settings in a file of their own, classes as ``named``."""
    shutil.copytree(checkpoint, folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings["image_processor"]))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings["video_processor"]))
    for file in NAMING_FILES:
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        content.pop("processor_class", None)
        name = named.get(file.removesuffix(".json"))
        if name is not None:
            content |= {"processor_class": name, "auto_map": {"AutoProcessor": f"processing.{name}"}}
        if content:
            path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("file", ["preprocessor_config", "tokenizer_config"])
def test_custom_classes_of_older_folders(file: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["qwen2_5_vl"]
    theirs = old_layout(checkpoint, tmp_path / "theirs", **{file: "TheirProcessor"})
    with pytest.raises(
        ValueError, match=rf"TheirProcessor is not known here.*\({file}\.json names this one\).*encoding="
    ):
        load_processor(theirs)
    assert load_processor(theirs, "native").encoding == "native"
    ours = old_layout(checkpoint, tmp_path / "timelens", **{file: "TimeLensProcessor"})
    assert load_processor(ours).encoding == "interleaved_timestamp"
    assert load_processor(ours, "native").encoding == "native"
    stock = old_layout(checkpoint, tmp_path / "stock", **{file: "Qwen2_5_VLProcessor"})
    assert load_processor(stock).encoding == "native"
    mixed = {"preprocessor_config": "Qwen2_5_VLProcessor", "tokenizer_config": "TheirProcessor"}
    with pytest.raises(ValueError, match="TheirProcessor is not known here"):
        load_processor(old_layout(checkpoint, tmp_path / "mixed", **mixed))


def test_options_without_effect_are_refused(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    folder, ready = tiny_checkpoints[family], READY[family]
    for option in (
        {"max_frames": 4},
        {"fps": 1.0},
        {"max_pixels": 4096},
        {"size": {"shortest_edge": 9, "longest_edge": 99}},
        {"min_tokens": 8},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(option))} would have no effect: .*frame_sampling="):
            ready.from_pretrained(folder, **option)
    with pytest.raises(ValueError, match="has no option frames_per_second"):
        ready.from_pretrained(folder, frames_per_second=2)
    loaded = ready.from_pretrained(
        folder, frame_sampling={"fps": 1.0}, padding_side="right", image_mean=[0, 0, 0], local_files_only=True
    )
    assert (loaded.frame_sampling.fps, loaded.tokenizer.padding_side) == (1.0, "right")
    assert list(loaded.image_processor.image_mean) == [0, 0, 0]


@pytest.mark.parametrize(
    "text", ["seconds: ", "{t}{t}", "{t.__class__}", "{0}", "{x:.1f}", "{t:.1q}", "{t!r}", "{t:{t}}", "{t"]
)
def test_timestamp_format_is_checked(text: str, tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="timestamp_format must hold the time in seconds once"):
        load_processor(tiny_checkpoints["qwen2_5_vl"], timestamp_format=text)


def test_a_timestamp_format_that_is_not_written_is_refused(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_checkpoints["qwen3_vl"]
    for encoding in set(ENCODINGS) - {"interleaved_timestamp"}:
        with pytest.raises(ValueError, match=f"timestamp_format: without effect with encoding '{encoding}'"):
            load_processor(folder, encoding, timestamp_format="at {t:.1f} ")
    processor = load_processor(folder, "interleaved_timestamp", timestamp_format="at {t:.1f} ")
    processor.configure(encoding="native").save_pretrained(tmp_path)  # what is saved may wait for another encoding
    assert load_processor(tmp_path).timestamp_format == "at {t:.1f} "
