"""The ``timelens`` command itself: what it says where a package is not installed, and where the recipes are."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from timelens_plugins.cli import COMMANDS, main
from timelens_plugins.cli.places import FOLDERS, READ, WRITTEN
from timelens_plugins.locations import how_to_install


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: timelens {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_works_on_a_base_install_and_on_any_terminal(name: str) -> None:
    alone = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] not in {*sys.stdlib_module_names, 'numpy', 'timelens_plugins'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from timelens_plugins.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", alone, name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=plain, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"usage: timelens {name}" in done.stdout or f"{name} [-h]" in done.stdout


def test_the_options_of_inspect_are_those_of_what_it_shows() -> None:
    from timelens_plugins.cli.inspect import SAMPLING
    from timelens_plugins.video import FrameSampling

    assert {field.name for field in fields(FrameSampling)} == {*SAMPLING, "patch_size", "merge_size"}


def test_a_command_names_the_extra_it_needs() -> None:
    without_torch = (
        "import sys; sys.modules['torch'] = None; from timelens_plugins.cli import main\n"
        "sys.exit(main(['inspect', 'clip.mp4', '--query', 'a red circle appears']))"
    )
    done = subprocess.run([sys.executable, "-c", without_torch], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == (
        "timelens inspect: torch is not installed: in a clone pip install -c constraints.txt '.[video]', with a wheel "
        "pip install 'timelens_plugins-0.1.0-py3-none-any.whl[video]'\n"
    )


def test_the_demo_asks_for_all_it_needs_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in {"trl", "peft"} else object())
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 2
    assert f"trl, peft is not installed: {how_to_install('eval,train')}" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_recipes_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "rlvr.py").is_file()
    assert (folder / "configs" / "timelens_8b_rlvr.yaml").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "FILE", "-o", "FILE"],
        ["convert", "FILE", "--to", "trl", "--allow-missing", "-o", "FILE"],
        ["score", "FILE", "--json", "FILE"],
        ["report", "mine=FILE", "-o", "FILE"],
        ["validate", "FILE", "--json", "FILE"],
    ],
)
def test_no_command_writes_over_what_it_reads(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"a": {"duration": 9.0, "spans": [[1, 4]], "queries": ["a dog barks"]}}')
    before = file.read_bytes()
    assert main([word.replace("FILE", str(file)) for word in words]) == 2
    assert "would replace a file that is read" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_every_place_that_a_command_names_is_looked_at_before_it_works() -> None:
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"timelens_plugins.cli.{name.replace('-', '_')}").add_arguments(parser)
        places = {action.dest for action in parser._actions if action.type is Path}
        assert places - {"video"} <= {*READ, *FOLDERS, *WRITTEN}, name


ANNOTATIONS = '{"video": "clip.mp4", "query": "a dog barks", "start": 1.0, "end": 4.0, "duration": 9.0}\n'
RESULTS = '{"clip.mp4>>>a dog barks>>>[[1, 4]]": {"timestamps": [[1, 4]], "answers": "1 - 4 seconds"}}'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with annotations, results and what stands for a video."""
    (tmp_path / "mine.jsonl").write_text(ANNOTATIONS)
    (tmp_path / "results.json").write_text(RESULTS)
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("validate GONE", ""),
        ("validate mine.jsonl --against GONE", "--against "),
        ("validate mine.jsonl --videos GONE", "--videos "),
        ("audit GONE", ""),
        ("audit mine.jsonl --answers GONE", "--answers "),
        ("audit mine.jsonl --videos GONE", "--videos "),
        ("review mine.jsonl --findings GONE -o out", "--findings "),
        ("review mine.jsonl --apply GONE -o out", "--apply "),
        ("convert GONE --to trl -o out", ""),
        ("score results.json --annotations GONE", "--annotations "),
        ("report results.json --training GONE -o out", "--training "),
        ("compare-benchmarks --findings GONE", "--findings "),
        ("plateau GONE", ""),
        ("ground clip.mp4 dog --model ./GONE", "--model "),
        ("inspect clip.mp4 --query dog --processor ./GONE", "--processor "),
        ("doctor --model ./GONE", "--model "),
    ],
)
def test_what_is_not_there_is_named_with_the_remedy(
    words: str, option: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.replace("GONE", "there/gone.json").split()) == 2
    name, told = words.split()[0], capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(
        (f"timelens {name}: {option}there/gone.json: ", f"timelens {name}: {option}./there/gone.json")
    )
    assert told.endswith(f"check the path: {files} has no 'there'\n")


@pytest.mark.parametrize(
    "words",
    [
        "validate mine.jsonl --json OUT",
        "validate mine.jsonl --fix OUT",
        "audit mine.jsonl -o OUT",
        "convert mine.jsonl --to trl -o OUT",
        "review mine.jsonl --findings file -o OUT",
        "score results.json --json OUT",
        "leaderboard -o OUT",
        "report results.json -o OUT",
        "plan --model Qwen3-VL-8B --json OUT",
        "compare-benchmarks charades --json OUT",
        "plateau . --plot OUT",
        "inspect clip.mp4 --query dog --contact-sheet OUT",
        "ground clip.mp4 dog --sheet OUT",
    ],
)
def test_where_nothing_can_be_written_is_said_before_any_work(
    words: str, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[object] = []
    module = importlib.import_module(f"timelens_plugins.cli.{words.split()[0].replace('-', '_')}")
    monkeypatch.setattr(module, "run", lambda args: worked.append(args) or 0)
    assert main(words.replace("OUT", "file/out.png").split()) == 2
    assert f"{files / 'file'} is a file and no folder" in capsys.readouterr().err
    if not words.startswith("ground"):  # which writes several moments into a folder
        assert main(words.replace("OUT", ".").split()) == 2
        assert ".: a folder; name the file in it" in capsys.readouterr().err
        os.mkfifo("pipe")
        assert main(words.replace("OUT", "pipe").split()) == 2
        assert "pipe: a device, pipe or socket" in capsys.readouterr().err
    assert main(words.replace("OUT", "-").split()) == 2
    assert "-: nothing is written to the standard output; name a file" in capsys.readouterr().err
    assert not worked
    # A folder that is not there is made, by every command alike.
    assert main(words.replace("OUT", "new/folder/out.png").split()) == 0
    assert (files / "new" / "folder").is_dir()
    assert worked


def test_convert_advises_its_own_option(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "mine.jsonl").write_text(ANNOTATIONS + ANNOTATIONS.replace("4.0", '"four"'))
    words = ["convert", "mine.jsonl", "--to", "trl", "-o", "out.jsonl"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "correct it, or pass --on-bad-annotation skip to leave it out" in told
    assert main([*words, "--on-bad-annotation", "skip"]) == 0
    said = capsys.readouterr()
    assert said.out == "1 rows written to out.jsonl\n"
    assert "SKIPPED: 1" in said.err
    assert main(["score", "results.json", "--annotations", "mine.jsonl"]) == 2
    advised = capsys.readouterr().err
    assert "or write a copy without it by timelens validate FILE --fix OUT" in advised
    assert main(["validate", "mine.jsonl", "--fix", "copy.jsonl"]) == 1
    assert main(["score", "results.json", "--annotations", "copy.jsonl"]) == 0
    assert "on_error" not in told + said.err + advised


def test_names_and_words_are_utf8_where_the_locale_is_not(tmp_path: Path) -> None:
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    plain.pop("PYTHONIOENCODING", None)
    folder = tmp_path / "vidéos"
    folder.mkdir()
    results = folder / "réponses.json"
    results.write_text(RESULTS.replace("a dog barks", "à la porte").replace("clip", "é"), encoding="utf-8")
    command = [sys.executable, "-c", "import sys; from timelens_plugins.cli import main; sys.exit(main())"]
    words = ["score", f"modèle={results}", "--json", str(folder / "é.json")]
    done = subprocess.run([*command, *words], capture_output=True, env=plain, timeout=300)
    assert done.returncode == 0, done.stderr
    assert b"mod\\xe8le" in done.stdout  # spelt out, as the terminal has no such letter
    assert "modèle" in (folder / "é.json").read_text(encoding="utf-8")
    broken = [*command, "report", str(results), "-o", "x.html", "--title", b"a \xff"]
    refused = subprocess.run(broken, capture_output=True, timeout=300)
    assert refused.returncode == 2
    assert b"argument --title: not UTF-8 text: 'a \\udcff'" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        "validate mine.jsonl --fix out.jsonl --json ./out.jsonl",
        "audit mine.jsonl -o out.jsonl --clean new/../out.jsonl",
        "convert mine.jsonl --to moments -o out.jsonl --validation-share 0.5 --validation-output out.jsonl",
        "plateau . --plot out.png --json out.png",
        "ground clip.mp4 dog --clip out.mp4 --sheet out.mp4",
    ],
)
def test_two_outputs_of_one_name_are_refused(words: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert "the two outputs are one file" in capsys.readouterr().err
    assert not list(files.glob("out*"))


@pytest.mark.parametrize(
    "words",
    ["validate mine.jsonl --fix", "audit mine.jsonl --clean", "audit mine.jsonl -o", "convert mine.jsonl --to trl -o"],
)
def test_rows_are_not_written_under_the_name_of_a_table(
    words: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "out.csv"]) == 2
    assert "out.csv: rows are written as JSON Lines; name it .jsonl" in capsys.readouterr().err
    assert not list(files.glob("out*"))


def test_one_folder_takes_two_kinds_of_outputs(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("timelens_plugins.cli.ground"), "run", lambda args: 0)
    assert main(["ground", "clip.mp4", "dog", "--clip", "cut", "--sheet", "cut"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("convert mine.jsonl --to moments -o out --seed 3", "--seed needs --validation-share"),
        ("convert mine.jsonl --to moments -o out --prompt grounding", "--prompt: without effect with --to moments"),
        ("convert mine.jsonl --to moments -o out --answers", "--answers: without effect with --to moments"),
        ("convert mine.jsonl --to moments -o out --allow-missing", "--allow-missing: without effect"),
        ("audit mine.jsonl --samples 4", "--samples needs --model"),
        ("audit mine.jsonl --threshold 0.7", "--threshold needs --clean"),
        ("leaderboard --annotations mine.jsonl", "--annotations: without effect without RESULTS"),
        ("compare-benchmarks --no-published", "--no-published needs --run"),
        (
            "compare-benchmarks charades --run m results.json ./results.json",
            "on the original and on the refined labels",
        ),
    ],
)
def test_options_without_effect_are_errors(
    words: str, said: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert said in capsys.readouterr().err
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("words", "values", "bounds"),
    [
        ("annotate . -o out --model m --events", "0 -1 2.5 x 9999999999", "at least 1"),
        ("annotate . -o out --model m --min-iou", "0 1.1 nan", "above 0 and at most 1"),
        ("annotate . -o out --model m --repairs", "-1", "at least 0"),
        ("annotate . -o out --model m --max-new-tokens", "0", "at least 1"),
        ("audit mine.jsonl --samples", "0", "at least 1"),
        ("audit mine.jsonl --workers", "0", "at least 1"),
        ("audit mine.jsonl --show", "-1", "at least 0"),
        ("audit mine.jsonl --threshold", "-0.1 1.1 nan", "at least 0 and at most 1"),
        ("convert mine.jsonl --to trl -o out --min-duration", "-1 inf", "at least 0"),
        ("convert mine.jsonl --to trl -o out --max-duration", "0 nan", "above 0"),
        ("convert mine.jsonl --to trl -o out --max-words", "0", "at least 1"),
        ("convert mine.jsonl --to trl -o out --validation-share", "0 1", "above 0 and below 1"),
        ("convert mine.jsonl --to trl -o out --seed", "-1", "at least 0"),
        ("demo --seed", "-1", "at least 0"),
        ("demo --processes", "0", "at least 1"),
        ("ground clip.mp4 dog -n", "0 -3", "at least 1"),
        ("ground clip.mp4 dog --seed", f"-1 {2**63}", "at least 0"),
        ("inspect clip.mp4 --query dog --fps", "0 inf", "above 0"),
        ("inspect clip.mp4 --query dog --min-frames", "0", "at least 1"),
        ("inspect clip.mp4 --query dog --max-frames", "1", "at least 2"),
        ("inspect clip.mp4 --query dog --min-tokens", "0", "at least 1"),
        ("inspect clip.mp4 --query dog --total-tokens", "0", "at least 1"),
        ("inspect clip.mp4 --query dog --max-pixels", "0", "at least 1"),
        ("inspect clip.mp4 --query dog --video-start", "-1", "at least 0"),
        ("inspect clip.mp4 --query dog --video-end", "0", "above 0"),
        ("plan --model Qwen3-VL-8B --frames", "1", "at least 2"),
        *((f"plan --model Qwen3-VL-8B --{name}", "0 -1", "at least 1") for name in (
            "tokens", "generations", "completion-tokens", "queries-per-video", "prompts", "steps", "gpus 8")),
        *((f"plan --model Qwen3-VL-8B --{name}", "0 inf", "above 0") for name in ("memory", "peak", "network")),
        ("plan --model Qwen3-VL-8B --mfu", "0 2", "above 0 and at most 1"),
        ("plateau . --patience", "0", "at least 1"),
        ("plateau . --min-steps", "-1", "at least 0"),
        ("plateau . --confidence", "0.5 1", "above 0.5 and below 1"),
        ("plateau . --samples-per-step", "0 inf", "above 0"),
        ("report results.json -o out --frames", "1 61", "at least 2 and at most 60"),
        ("report results.json -o out --strips", "-1", "at least 0"),
        ("report results.json -o out --frame-budget", "0 inf", "above 0"),
        ("review mine.jsonl --findings file -o out --min-score", "-1 nan", "at least 0 and at most 1"),
        ("review mine.jsonl --findings file -o out --strips", "-1", "at least 0"),
        ("validate mine.jsonl --workers", "0", "at least 1"),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_told_with_its_option_and_bounds(
    words: str, values: str, bounds: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = next(word for word in reversed(words.split()) if word.startswith("-"))
    for value in values.split():
        with pytest.raises(SystemExit, match="2"):
            main([*words.split(), value])
        told = capsys.readouterr().err
        assert re.search(rf"error: argument .*{option}.*: must be a (whole )?number, {bounds}.*, got '{value}'", told)
    assert not (files / "out").exists()


def test_every_number_of_a_command_has_bounds() -> None:
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"timelens_plugins.cli.{name.replace('-', '_')}").add_arguments(parser)
        assert not [action.dest for action in parser._actions if action.type in (int, float)], name


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["score", ""], "behind 'score'"),
        (["score", "results.json", "--annotations", ""], "behind '--annotations'"),
        (["score", "results.json", "--json="], "of --json"),
        (["validate", "mine.jsonl", "--videos", ""], "behind '--videos'"),
        (["audit", "mine.jsonl", "--videos="], "of --videos"),
        (["report", "", "-o", "out"], "behind 'report'"),
        (["ground", "", "dog"], "behind 'ground'"),
        (["doctor", "--model", ""], "behind '--model'"),
    ],
)
def test_an_empty_argument_is_no_path(
    words: list[str], where: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"timelens {words[0]}: the argument {where} is empty: is a variable not set?\n"
