"""One's own annotations: the task ``timelens_custom``, named tasks from a folder outside the package, and the rest of
the way: two models, training by the recipes, scores and the report."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_lmms_eval import GENERATION, answers, arguments, run, samples, scores

from timelens_plugins.evaluation.specs import TaskSpec, read_spec, specs_of
from timelens_plugins.evaluation.subsets import load_subset
from timelens_plugins.families.tiny import save_checkpoint

CLIPS = ("3MSZA", "OHOFG")


@pytest.fixture(scope="module")
def own_csv(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real annotations of the two real clips as a person's table."""
    annotated = json.loads((real_data / "charades" / "charades_sta_test.json").read_text())
    path = tmp_path_factory.mktemp("own") / "kitchen.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Video", "Query", "Start", "End", "annotator"])
        for clip in CLIPS:
            for (start, end), query in zip(annotated[clip]["timestamps"], annotated[clip]["sentences"], strict=True):
                table.writerow([f"{clip}.mp4", query, start, end, "ann"])
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights large enough that answers depend on video and query."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "qwen3_vl", initializer_range=0.4)


def task_file(folder: Path, **spec: Any) -> Path:
    """A YAML file as docs/own-data.md shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kitchen.yaml"
    path.write_text(yaml.safe_dump({"task": "kitchen", "include": "timelens", "timelens": spec}))
    return path


@pytest.fixture(scope="module")
def evaluated(
    own_csv: Path, real_data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """One run of the custom task, of a named one from a folder of its own, and of the clips in their benchmark."""
    output, folder = tmp_path_factory.mktemp("output"), tmp_path_factory.mktemp("tasks")
    task_file(folder, annotations=str(own_csv), videos="$CLIPS", format="csv")
    done = run(
        "lmms_eval",
        *arguments(checkpoint, output, "timelens_custom,kitchen,timelens_original_charades_sta"),
        *("--include_path", str(folder)),
        TIMELENS_CUSTOM_ANNOTATIONS=str(own_csv),
        TIMELENS_CUSTOM_VIDEOS=str(real_data / "charades"),
        CLIPS=str(real_data / "charades"),
        TIMELENS_ORIGINAL_DIR=str(real_data),
        TIMELENS_ALLOW_MISSING="1",
    )
    return output, done.stdout + done.stderr


def test_the_custom_task_and_a_named_one_give_what_the_benchmark_gives(
    evaluated: tuple[Path, str], own_csv: Path
) -> None:
    output, printed = evaluated
    found = scores(output)
    original = found.pop("timelens_original_charades_sta") | {"missing_videos": 0}
    assert found == {"timelens_custom": original, "kitchen": original}
    texts: dict[str, list[tuple[Any, ...]]] = {}
    for path in output.rglob("*_samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        texts[path.stem.split("_samples_")[1]] = [
            (r["mIoU"]["video"], r["mIoU"]["query"], r["mIoU"]["span"], r["filtered_resps"]) for r in rows
        ]
    # the benchmark's file has its videos in another order
    assert sorted(texts["kitchen"]) == sorted(texts["timelens_custom"])
    assert sorted(texts["kitchen"]) == sorted(texts["timelens_original_charades_sta"])
    assert len(texts["kitchen"]) == 10
    assert len({str(row[3]) for row in texts["kitchen"]}) > 4
    assert "kitchen.csv (csv): 10 moments of 2 videos in 10 rows; not read: 'annotator'" in printed
    assert {row["mIoU"]["subset"] for row in samples(output)} == {"kitchen", "charades_sta_test"}


def test_a_model_of_lmms_eval_answers_the_same_task(
    own_csv: Path, real_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run(
        "lmms_eval",
        *("--model", "qwen3_vl", "--tasks", "timelens_custom", "--log_samples", "--output_path", str(tmp_path)),
        "--model_args",
        f"pretrained={checkpoint},device=cpu,device_map=cpu,attn_implementation=eager,max_num_frames=8",
        *GENERATION,
        TIMELENS_CUSTOM_ANNOTATIONS=str(own_csv),
        TIMELENS_CUSTOM_VIDEOS=str(real_data / "charades"),
        FORCE_QWENVL_VIDEO_READER="decord",
    )
    assert len(answers(tmp_path)) == 10
    assert len({str(text) for _, _, text in answers(tmp_path)}) > 4
    assert scores(tmp_path)["timelens_custom"].keys() >= {"R1@0.5", "mIoU", "mIoU_rounded", "missing_videos"}


def test_what_was_evaluated_is_scored_and_reported(
    evaluated: tuple[Path, str], real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from timelens_plugins.cli import main

    files = [str(path) for path in evaluated[0].rglob("*_samples_timelens_custom.jsonl")]
    assert main(["score", *files]) == 0
    assert "timelens_custom" in capsys.readouterr().out
    page = tmp_path / "report.html"
    assert main(["report", *files, "-o", str(page), "--videos", str(real_data / "charades")]) == 0
    assert "person turn a light on" in page.read_text()


@pytest.mark.parametrize("name", ["sft", "rlvr"])
def test_the_same_file_trains(name: str, own_csv: Path, real_data: Path, tmp_path: Path) -> None:
    from recipe_runs import run as run_recipe

    run_recipe(
        name,
        annotations=str(own_csv),
        video_root=str(real_data / "charades"),
        synthetic_folder=str(tmp_path / "synthetic"),
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        save_steps=1,
    )
    state = json.loads((tmp_path / "out" / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["global_step"] == 1
    assert (tmp_path / "out" / "model.safetensors").is_file()


CUSTOM = "TIMELENS_CUSTOM_ANNOTATIONS"


@pytest.mark.parametrize(
    ("spec", "environment", "message"),
    [
        ({"annotations": "absent.csv"}, {}, "kitchen: no annotations at "),
        ({"annotations": "$NOWHERE"}, {}, "kitchen needs NOWHERE: the path of an annotation file"),
        ({"annotations": "kitchen.csv", "format": "cvs"}, {}, "unknown annotation format 'cvs'"),
        ({"annotations": "kitchen.csv", "videos": "gone"}, {}, "no folder of videos at "),
        ({"annotations": "kitchen.csv", "video": "x"}, {}, "unknown field video; known: annotations, videos"),
        ({"videos": "x"}, {}, "names no annotations; write annotations: FILE"),
        ({"annotations": "bad.csv"}, {}, "line 2: field 'start': must be a number of seconds, got '1:15'"),
        ({"annotations": "kitchen.csv"}, {}, "2 videos ("),
        (None, {}, f"timelens_custom needs {CUSTOM}"),
        (None, {CUSTOM: "absent.csv"}, "timelens_custom: no annotations at "),
    ],
)
def test_what_is_wrong_is_said_before_a_model_loads(
    spec: dict[str, Any] | None, environment: dict[str, str], message: str, own_csv: Path, tmp_path: Path
) -> None:
    """By the function that the hook calls first; the next test runs the command."""
    (tmp_path / "kitchen.csv").write_bytes(own_csv.read_bytes())
    (tmp_path / "bad.csv").write_text("video,query,start,end\na.mp4,q,1:15,80\n")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        with pytest.raises((FileNotFoundError, ValueError)) as caught:
            load_subset(read_spec(spec, "kitchen", str(tmp_path / "kitchen.yaml")) if spec else _custom())
    assert message in str(caught.value)


def _custom() -> TaskSpec:
    from timelens_plugins.locations import shipped_folder

    path = shipped_folder("tasks") / "timelens_custom" / "timelens_custom.yaml"
    return read_spec(yaml.safe_load(path.read_text())["timelens"], "timelens_custom", str(path))


def test_the_command_fails_with_a_status_before_the_model_is_looked_at(own_csv: Path, tmp_path: Path) -> None:
    for number, spec in enumerate([{"annotations": "absent.csv"}, {"annotation": str(own_csv)}]):
        folder = task_file(tmp_path / str(number), **spec).parent
        command = arguments(tmp_path / "no-such-checkpoint", tmp_path / "out", "kitchen")
        done = run("lmms_eval", *command, "--include_path", str(folder), expect=1)
        assert "no annotations at" in done.stderr or "unknown field annotation" in done.stderr
        assert "no-such-checkpoint" not in done.stderr


def test_groups_and_configurations_are_checked_too(own_csv: Path, tmp_path: Path) -> None:
    from timelens_plugins.evaluation.hook import install

    install()
    from lmms_eval import utils
    from lmms_eval.tasks import TaskManager

    path = task_file(tmp_path, annotations=str(own_csv), videos="/clips")
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [kitchen, timelens_custom, {task: kitchen, repeats: 2}]\n")
    (tmp_path / "changed.yaml").write_text("task: changed\ninclude: kitchen.yaml\ntimelens: {annotations: x.csv}\n")
    manager = TaskManager(include_path=str(tmp_path))
    assert [s.task for s in specs_of("mine", manager)] == ["kitchen", "timelens_custom", "kitchen"]
    config = utils.load_yaml_config(str(path))
    assert "timelens" not in config
    assert [s.videos for s in specs_of([config, {"task": "kitchen"}], manager)] == [("/clips",), ("/clips",)]
    assert [s.annotations for s in specs_of(["changed"], manager)] == [("x.csv",)]
    assert utils.load_yaml_config(str(tmp_path / "changed.yaml"))["process_docs"].keywords["spec"].task == "changed"


def test_chat_rows_are_asked_in_their_own_words(real_data: Path, tmp_path: Path) -> None:
    from timelens_plugins.evaluation.task_functions import doc_to_text, process_docs

    turns = [{"role": "user", "content": "<video>When? [[s, e]]"}, {"role": "assistant", "content": "[[24.3, 30.4]]"}]
    row = {"messages": turns, "videos": ["3MSZA.mp4"]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(row))
    spec = read_spec(
        {"annotations": "chat.jsonl", "videos": str(real_data / "charades")}, "own", str(tmp_path / "own.yaml")
    )
    [doc] = process_docs(None, spec=spec)
    assert (doc_to_text(doc), doc["spans"]) == ("When? [[s, e]]", [[24.3, 30.4]])


def test_videos_lie_beside_the_annotations_or_where_their_paths_say(
    own_csv: Path, real_data: Path, tmp_path: Path
) -> None:
    clip = real_data / "charades" / "3MSZA.mp4"
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    (tmp_path / "videos" / "deep" / "one.MP4").symlink_to(clip)
    (tmp_path / "two.mkv").symlink_to(clip)
    rows = ["deep/one.MP4,q,1,2", "two.mp4,q,1,2", f"{clip},q,1,2"]
    (tmp_path / "own.csv").write_text("\n".join(["video,query,start,end", *rows]))
    loaded = load_subset(read_spec({"annotations": "own.csv"}, "own", str(tmp_path / "own.yaml")))
    found = [str(tmp_path / "videos/deep/one.MP4"), str(tmp_path / "two.mkv"), str(clip)]
    assert [m.video for m in loaded.moments] == found
    assert {m.source for m in loaded.moments} == {"own"}


def test_the_example_evaluates_a_table(benchmark_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    annotated = json.loads((benchmark_folder / "charades-timelens.json").read_text())
    rows = [
        [f"{video}.mp4", query, *span]
        for video, row in annotated.items()
        for query, span in zip(row["queries"], row["spans"], strict=True)
    ]
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["video", "query", "start", "end"], *rows])
    script = Path(__file__).parents[2] / "examples" / "evaluate_own_csv.sh"
    videos, output = benchmark_folder / "videos" / "charades", tmp_path / "out"
    done = subprocess.run(
        [script, tmp_path / "own.csv", videos, f"{checkpoint},device=cpu,total_tokens=256", output, *GENERATION],
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert scores(output)["timelens_custom"]["missing_videos"] == 0
    assert len(samples(output)) == len(rows) == 4
    assert "timelens_custom" in done.stdout
    assert rows[0][1] in (output / "report.html").read_text()
