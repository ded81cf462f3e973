"""``timelens leaderboard``: what is ranked, what stands apart and why, from files as lmms-eval and TimeLens write them.

The real command's output is read in ``tests/evaluation/test_lmms_eval.py``; here runs have the size of the benchmark.
"""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from timelens_plugins.cli import main
from timelens_plugins.evaluation.task_functions import process_results
from timelens_plugins.leaderboard import build_board, load_published, read_entries
from timelens_plugins.leaderboard.protocol import FREE, RENAMED

TASK = "timelens_bench_charades"
SIZES = {"charades": (3363, 1313), "activitynet": (4500, 1455), "qvhighlights": (1541, 1511)}
DATE = "20260101_000000"
ANSWERS = ("The event happens in 0.0 - 5.4 seconds.", "The event happens in 0.0 - 7.4 seconds.")


def write_run(
    folder: Path,
    subset: str = "charades",
    *,
    count: int | None = None,
    videos: int | None = None,
    video: str = "video{}",
    task: str | None = None,
    samples: bool = True,
    model_args: str | dict[str, Any] = "pretrained=Qwen/Qwen3-VL-8B-Instruct,device=cuda,batch_size=4",
    generation: dict[str, Any] | None = None,
    missing: int = 0,
    **config: Any,
) -> Path:
    """A run of the model ``timelens`` that answers queries of [0, 10] with [0, 5.4] and [0, 7.4] in turn; its folder.

    Half the IoUs are 0.5 and half 0.7 as rounded, 0.54 and 0.74 as they are.
    """
    count = SIZES[subset][0] if count is None else count
    videos = min(count, SIZES[subset][1]) if videos is None else videos
    task = task or f"timelens_bench_{subset}"
    doc = {"video_id": "", "query": "query", "spans": [[0.0, 10.0]], "duration": 20.0, "subset": subset, "flags": []}
    scored = [(answer, process_results(doc | {"missing_videos": missing}, [answer])) for answer in ANSWERS]
    rows = []
    for i in range(count):
        answer, items = scored[i % 2]
        key = {"video": video.format(i % videos), "query": f"query {i}"}
        keyed = {name: item | key if "score" in item else item for name, item in items.items()}
        rows.append({"doc_id": i, "filtered_resps": answer, **keyed})
    share = (count + 1) // 2 / count  # of the first answer
    scores = {"mIoU,none": 70 - 20 * share, "mIoU_exact,none": 74 - 20 * share, "missing_videos,none": missing}
    for t, value in ((0.3, 100.0), (0.5, 100.0), (0.7, 100 * (1 - share))):
        scores |= {f"R1@{t},none": value, f"R1@{t}_exact,none": value}
    default = {"max_new_tokens": 512, "temperature": 0, "do_sample": False, "until": []}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{DATE}_results.json"
    content = json.loads(path.read_text()) if path.exists() else {"results": {}, "configs": {}, "n-samples": {}}
    content["results"][task] = scores
    content["configs"][task] = {"task": task, "generation_kwargs": default | (generation or {})}
    content["n-samples"][task] = {"original": count, "effective": count}
    content |= {"config": {"model": "timelens", "model_args": model_args, "limit": None, "offset": 0} | config}
    name = "" if isinstance(model_args, dict) else model_args.split("pretrained=")[-1].split(",")[0]
    content |= {"model_name": name, "date": DATE, "groups": {"g": {}}}
    path.write_text(json.dumps(content))
    if samples:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{DATE}_samples_{task}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on all three benchmarks: mIoU 0.6, and 0.64 without rounding."""
    folder = tmp_path_factory.mktemp("whole")
    for subset in SIZES:
        write_run(folder, subset)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on QVHighlights-TimeLens alone."""
    return write_run(tmp_path_factory.mktemp("one"), "qvhighlights")


def records(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main(["leaderboard", *map(str, arguments), "--format", "json"]) == 0
    return [row for section in json.loads(capsys.readouterr().out)["sections"] for row in section["rows"]]


def ours(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["ours"]]


def test_published_data_agree_with_what_they_describe() -> None:
    """With the model's defaults, the tasks' settings, and the few figures typed here once more."""
    from timelens_plugins.evaluation.model import TimeLens

    published = load_published()
    parameters = inspect.signature(TimeLens.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if name not in ("self", "unknown")}
    for name, value in published.protocol.settings.items():
        assert defaults[name] == value
    assert set(defaults) == (set(published.protocol.settings) | FREE) - RENAMED.keys()
    common = yaml.load((Path(__file__).parents[1] / "tasks" / "_common").read_text(), yaml.BaseLoader)
    assert {k: str(v).lower() for k, v in published.protocol.generation.items()} == {
        k: v for k, v in common["generation_kwargs"].items() if k != "until"
    }
    files = (Path(__file__).parents[1] / "tasks").glob("timelens_[bo]*/timelens_*.yaml")
    tasks = [found[1] for file in files if (found := re.search(r"^task: (\w+)$", file.read_text(), re.MULTILINE))]
    assert len(tasks) == 6
    assert all(published.of_task(task) for task in tasks)
    figures = {(e.model, e.benchmark): [*e.recall.values(), e.miou] for e in published.entries}
    assert figures["TimeLens-8B", "charades-timelens"] == [76.6, 63.0, 35.2, 55.2]
    assert figures["Qwen2.5-VL-7B", "qvhighlights-timelens"] == [41.5, 27.8, 15.2, 31.6]
    assert figures["Gemini-2.5-Pro", "activitynet-timelens"] == [72.3, 64.2, 47.1, 58.1]
    assert figures["TimeLens-7B", "charades-sta"] == [42.3]
    assert figures["Video-ORA-9B", "qvhighlights-timelens"] == [72.5]
    for entry in published.entries:
        assert list(entry.recall.values()) == sorted(entry.recall.values(), reverse=True)
        assert entry.source.startswith("arXiv:") or entry.source == "source not recorded here"
        assert entry.rules or entry.differences
    comparable = [e.model for e in published.entries if not e.differences]
    assert {comparable.count(model) for model in comparable} == {3}
    assert len(comparable) == 54
    rules = {e.model: e.rules for e in published.entries if not e.differences}
    assert sum(rules[m].startswith(("GPT's", "Gemini's", "run by")) for m in rules) == 8
    assert [m for m in rules if rules[m] == "2 fps, 14336 tokens"] == [
        *("MiMo-VL-7B", "Qwen2.5-VL-7B", "TimeLens-7B", "Qwen3-VL-8B", "TimeLens-8B")
    ]


def test_a_whole_run_is_ranked_with_its_interval(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = records(capsys, whole)
    [charades, activitynet, qvhighlights, average] = ours(rows)
    assert charades["benchmark"] == "charades-timelens"
    assert charades["mIoU"] == pytest.approx(60, abs=0.01)
    assert charades["mIoU_exact"] == pytest.approx(64, abs=0.01)
    assert [charades[f"R1@{t}"] for t in (0.3, 0.5, 0.7)] == [100, 100, pytest.approx(50, abs=0.02)]
    assert (charades["annotations"], charades["videos"], charades["scored_from"]) == (3363, 1313, "samples")
    # Standard deviation 10, two or three answers a video: their residuals cancel or add up to 10.
    assert 0.1 < charades["mIoU_high"] - charades["mIoU"] < 2 * 10 / 1313**0.5
    assert charades["mIoU"] - charades["mIoU_low"] == pytest.approx(charades["mIoU_high"] - charades["mIoU"])
    assert charades["model"] == "Qwen/Qwen3-VL-8B-Instruct"
    # Above 55.2; above 58.1; below 70.4, 65.5, 64.6, 64.3 and 60.8.
    assert [charades["rank"], activitynet["rank"], qvhighlights["rank"]] == [1, 1, 6]
    # Gemini-2.5-Pro has 52.8, 58.1, 70.4: 60.4 on average.
    assert (average["benchmark"], average["rank"], average["annotations"]) == ("average", 2, 9404)
    assert not charades["differences"]
    # The best published figure never enters the ranking: it was made with more frames.
    assert [row["rank"] for row in rows if row["model"] == "Video-ORA-9B"] == [None] * 4


def test_the_table_marks_our_rows_in_their_place(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(one)]) == 0
    out = capsys.readouterr().out
    section = out.split("QVHighlights-TimeLens: 1541")[1].rpartition("\n\n")[0].splitlines()  # without the legend
    ranked = [
        line.split() for line in section if line.split()[:1] and line.split()[0] in ("▸", *map(str, range(1, 20)))
    ]
    assert ranked[5][:8] == ["▸", "6", "Qwen/Qwen3-VL-8B-Instruct", "100.0", "100.0", "50.0", "60.0", "59.5"]
    assert [row[1] for row in ranked[4:7:2]] == ["Gemini-2.0-Flash", "Qwen3-VL-8B"]
    assert len(ranked) == 19
    assert "Charades" not in out  # nothing was run on it
    assert "4 fps; up to 128K tokens" in out
    assert f"Qwen/Qwen3-VL-8B-Instruct: from {one}" in out


def test_equal_figures_share_a_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 3363 answers of IoU 0.5 and 0.6 that give 55.2 in one decimal, as TimeLens-8B has.
    folder = write_run(tmp_path, samples=False)
    path = folder / f"{DATE}_results.json"
    content = json.loads(path.read_text())
    content["results"][TASK]["mIoU,none"] = 55.24
    path.write_text(json.dumps(content))
    rows = [row for row in records(capsys, folder) if row["rank"]]
    assert [(row["rank"], row["mIoU"]) for row in rows][:3] == [(1, 55.24), (1, 55.2), (3, 52.8)]


def test_a_limit_of_minus_one_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = ours(records(capsys, write_run(tmp_path, samples=False, limit=-1.0)))
    assert (row["rank"], row["differences"]) == (1, [])


def test_without_samples_the_results_file_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = ours(records(capsys, write_run(tmp_path, samples=False)))
    assert (row["scored_from"], row["mIoU_low"]) == ("results.json", None)
    assert (row["mIoU"], row["mIoU_exact"]) == (pytest.approx(60, abs=0.01), pytest.approx(64, abs=0.01))
    assert (row["rank"], row["videos"]) == (1, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"limit": 10, "count": 10}, "--limit 10"),
        ({"limit": 10, "count": 10}, "10 of 3363 annotations"),
        ({"offset": 5}, "--offset 5"),
        ({"count": 3362}, "3362 of 3363 annotations"),
        ({"count": 3400}, "3400 annotations instead of 3363"),
        ({"missing": 3}, "3 videos missing"),
        ({"model_args": "pretrained=a,fps=4"}, "fps=4 instead of 2"),
        ({"model_args": "pretrained=a,total_tokens=131072"}, "total_tokens=131072 instead of 14336"),
        ({"model_args": "pretrained=a,prompt=When is {query}, a, b?"}, "prompt=When is {query}, a, b?"),
        ({"model_args": {"pretrained": "a", "max_frames": 448}}, "max_frames=448 instead of 768"),
        ({"model_args": "pretrained=a,zoom=2"}, "zoom=2, a setting unknown here"),
        ({"generation": {"max_new_tokens": 24}}, "max_new_tokens=24 instead of 512"),
        ({"generation": {"repetition_penalty": 1.0}}, "repetition_penalty=1.0 instead of the checkpoint's"),
        ({"generation": {"do_sample": True, "temperature": 0.5}}, "sampled answers (temperature 0.5)"),
        ({"model": "qwen3_vl"}, "settings not recorded: frame sampling and prompt of the model 'qwen3_vl'"),
        ({"task": "timelens_original_charades_sta"}, "original annotations, not TimeLens-Bench"),
    ],
)
def test_what_is_not_comparable_stands_apart_with_the_reason(
    change: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, samples=False, **change)
    rows = records(capsys, folder)
    [row] = ours(rows)
    assert row["rank"] is None
    assert any(difference.startswith(reason) for difference in row["differences"])
    assert sum(r["rank"] is not None for r in rows) in (0, 18)  # none on the original annotations
    main(["leaderboard", str(folder)])
    assert reason in capsys.readouterr().out.split("given runs that are not comparable")[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": 1540}, "1540 of 1541 annotations"),
        ({"videos": 1500}, "1500 videos instead of 1511"),
        ({"video": "heldout-qvhighlights-0-{:05d}"}, "synthetic clips"),
        ({"missing": 3}, "3 videos missing"),
    ],
)
def test_samples_show_what_the_results_file_does_not_say(
    change: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [row] = ours(records(capsys, write_run(tmp_path, "qvhighlights", **change)))
    assert (row["rank"], row["differences"]) == (None, [reason])


def test_settings_that_are_no_part_of_the_protocol_do_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_args = "pretrained=/data/runs/mine,dtype=bfloat16,fps=2,journal=j,encoding=native,on_bad_video=skip"
    [row] = ours(records(capsys, write_run(tmp_path, samples=False, model_args=model_args)))
    assert (row["rank"], row["model"]) == (1, "mine")
    assert row["notes"] == ["encoding=native", "on_bad_video=skip"]


def test_samples_that_do_not_fit_their_results_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, "qvhighlights")
    path = folder / f"{DATE}_samples_timelens_bench_qvhighlights.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    [row] = ours(records(capsys, folder))
    assert "the samples file holds 1540 rows of the 1541 that were evaluated" in row["differences"]
    path.write_text("".join(line.replace("[0.0, 5.4]", "[0.0, 8.0]") for line in lines))
    [row] = ours(records(capsys, folder))
    assert "the results file says mIoU 59.99, the samples 75.00" in row["notes"]
    assert "771 stored predictions are not what the answers say, see timelens score" in row["notes"]
    assert row["mIoU"] == pytest.approx(75, abs=0.01)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_result_files_of_timelens(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {f"{i % 1511}.mp4>>>query {i}>>>[[0, 10]]": {"timestamps": [[0, 6.4]], "answers": "0 - 6.4 seconds"}}
        for i in range(1541)
    ]
    whole = {key: value for entry in entries for key, value in entry.items()}
    text = json.dumps(whole) if suffix == "json" else "".join(json.dumps(entry) + "\n" for entry in entries)
    path = tmp_path / "TimeLens-8B" / f"qvhighlights-timelens.{suffix}"
    path.parent.mkdir()
    path.write_text(text)
    [row] = ours(records(capsys, path.parent))
    assert (row["model"], row["rank"], row["mIoU"]) == ("TimeLens-8B", None, pytest.approx(60))
    assert row["differences"] == ["settings not recorded in a TimeLens result file"]
    [row] = ours(records(capsys, f"mine={path}", "--assume-protocol"))
    assert (row["model"], row["rank"]) == ("mine", 6)
    assert row["notes"] == ["settings taken for the official ones"]
    other = path.rename(tmp_path / f"answers.{suffix}")
    assert main(["leaderboard", str(other)]) == 2
    assert "or give --benchmark" in capsys.readouterr().err
    [row] = ours(records(capsys, other, "--benchmark", "qvhighlights-timelens", "--assume-protocol"))
    assert row["rank"] == 6


def test_runs_of_one_label_are_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_run(tmp_path / subset, subset, samples=False) for subset in SIZES]
    assert not any(row["benchmark"] == "average" for row in ours(records(capsys, *folders)))
    rows = ours(records(capsys, *(f"mine={folder}" for folder in folders)))
    assert [row["benchmark"] for row in rows] == [f"{subset}-timelens" for subset in SIZES] + ["average"]
    assert {row["model"] for row in rows} == {"mine"}


def test_an_average_keeps_the_notes_of_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, answer = [], {"timestamps": [[0, 6.4]], "answers": "0 - 6.4 seconds"}
    for subset, (n, videos) in SIZES.items():
        rows = {f"{i % videos}.mp4>>>query {i}>>>[[0, 10]]": answer for i in range(n)}
        files.append(tmp_path / f"{subset}-timelens.json")
        files[-1].write_text(json.dumps(rows))
    rows = ours(records(capsys, *(f"mine={file}" for file in files), "--assume-protocol"))
    assert [row["benchmark"] for row in rows][-1] == "average"
    assert {note for row in rows for note in row["notes"]} == {"settings taken for the official ones"}
    assert all(row["notes"] for row in rows)


def test_runs_of_one_model_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_run(tmp_path / "a", samples=False), write_run(tmp_path / "b", samples=False)
    rows = ours(records(capsys, a, b, a))
    assert {row["model"] for row in rows} == {f"Qwen/Qwen3-VL-8B-Instruct ({f}/{DATE}_results.json)" for f in (a, b)}
    path = b / f"{DATE}_results.json"
    path.write_text(path.read_text().replace(f'"date": "{DATE}"', '"date": "20260102_000000"'))
    names = {row["model"] for row in ours(records(capsys, a, b))}
    assert names == {f"Qwen/Qwen3-VL-8B-Instruct ({date})" for date in (DATE, "20260102_000000")}


def test_lmms_evals_own_task_is_scored_here_where_it_has_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(
        tmp_path, subset="qvhighlights", task="timelens_qvhighlights", samples=False, generation={"max_new_tokens": 50}
    )
    path = folder / f"{DATE}_results.json"
    content = json.loads(path.read_text())
    content["results"]["timelens_qvhighlights"] = {
        "timelens_mIOU,none": 64.0,
        **{f"timelens_IOU@{t},none": 50.0 for t in (3, 5, 7)},
    }
    path.write_text(json.dumps(content))
    [row] = ours(records(capsys, folder))
    assert "scored by lmms-eval's own task: not rounded, other parser (no samples logged)" in row["differences"]
    answer = "The event happens in 0.0 - 6.4 seconds."
    samples = [
        {"doc_id": i, "timelens_mIOU": {f"qvhighlights/{i % 1511}.mp4>>>query {i}>>>[[0, 10]]": answer}}
        for i in range(1541)
    ]
    (folder / f"{DATE}_samples_timelens_qvhighlights.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    [row] = ours(records(capsys, folder))
    assert (row["mIoU"], row["mIoU_exact"]) == (pytest.approx(60), pytest.approx(64))
    assert row["differences"] == ["max_new_tokens=50 instead of 512"]


def test_other_benchmarks_are_passed_over_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, samples=False)
    path = folder / f"{DATE}_results.json"
    content = json.loads(path.read_text())
    content["results"] |= {"mvbench": {}, "g": {}}
    path.write_text(json.dumps(content))
    assert main(["leaderboard", str(folder)]) == 0
    assert capsys.readouterr().err == f"timelens leaderboard: {path}: passed over, another benchmark: mvbench.\n"
    del content["results"][TASK]
    path.write_text(json.dumps(content))
    assert main(["leaderboard", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "no results on TimeLens-Bench" in said
    assert said.count("passed over") == 1


def test_formats_hold_the_same_figures(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = records(capsys, f"a|b={one}", "--original")
    main(["leaderboard", f"a|b={one}", "--original", "--format", "csv"])
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(r["benchmark"], r["model"], float(r["mIoU"])) for r in table] == [
        (r["benchmark"], r["model"], pytest.approx(r["mIoU"])) for r in expected
    ]
    assert sum(r["benchmark"] == "charades-sta" for r in table) == 6
    out = tmp_path / "board.md"
    assert main(["leaderboard", f"a|b={one}", "--format", "markdown", "-o", str(out)]) == 0
    assert capsys.readouterr().out == ""
    lines = out.read_text().splitlines()
    assert "| ▸ 6 | **a\\|b** | 100.0 | 100.0 | 50.0 | 60.0 | 59.5 – 60.5 | 64.0 | samples |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {10}


def test_published_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = records(capsys)
    assert len(rows) == 4 * 24
    assert {row["scored_from"] for row in rows} == {"published"}
    assert len(records(capsys, "--original")) == 4 * 24 + 12
    average = [row for row in rows if row["benchmark"] == "average" and row["model"] == "TimeLens-7B"]
    assert average[0]["mIoU"] == pytest.approx((48.8 + 46.2 + 56.0) / 3)


def test_an_empty_selection_of_runs_gives_the_published_board() -> None:
    published = load_published()
    assert read_entries([], published).entries == ()
    assert [section.key for section in build_board(published).sections][-1] == "average"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x_results.json", "{", "x_results.json: not JSON"),
        ("x_results.json", '{"results": {}}', "field 'config' is missing or no object"),
        (
            "x_results.json",
            '{"results": {"timelens_bench_charades": {"mIoU,none": null}}, "config": {}, "configs": {}}',
            "task 'timelens_bench_charades', field 'mIoU,none': expected a number, got None",
        ),
        ("charades-timelens.json", '{"a": {"duration": 1}}', "no TimeLens result file"),
        ("readme.txt", "", "no *results.json"),
    ],
)
def test_errors_are_one_line(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["leaderboard", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("timelens leaderboard: ")


def test_absent_paths_and_empty_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["leaderboard", "=x"]) == 2
    assert "expected NAME=PATH" in capsys.readouterr().err
    a, b = write_run(tmp_path / "a", samples=False), write_run(tmp_path / "b", samples=False)
    assert main(["leaderboard", f"m={a}", f"m={b}"]) == 2
    assert "m: 2 results on charades-timelens; give each run a name of its own" in capsys.readouterr().err


def test_the_package_is_light() -> None:
    code = "import sys, timelens_plugins.leaderboard; print(*(m for m in ('torch', 'lmms_eval') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
