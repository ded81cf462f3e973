"""docs/own-data.md: what it shows is read as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from timelens_plugins.moments import AnnotationError, load_moments
from timelens_plugins.moments.files import COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_load(tmp_path: Path) -> None:
    table, rows, chat = BLOCKS[:3]
    found = []
    for text in (table, rows, " ".join(chat.split())):
        path = tmp_path / "file"
        path.write_text(text)
        found.append([(m.video, m.query, [tuple(s) for s in m.spans]) for m in load_moments(path)])
    assert found[0] == [
        ("3MSZA.mp4", "person turns on a light", [(24.3, 30.4)]),
        ("kitchen/day2.mkv", "opens the fridge, then closes it", [(75, 81.5)]),
    ]
    assert found[1][0] == found[0][0]
    assert found[1][1][2] == [(12, 20), (75, 81.5)]
    assert found[2] == [("cat.mp4", "When does the cat sleep?", [(1.5, 4)])]


def test_every_column_is_explained() -> None:
    table = PAGE[PAGE.index("| column |") : PAGE.index("Capitals,")]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == COLUMNS


def test_the_message_is_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = next(block for block in BLOCKS if block.startswith("own.csv: line 3"))
    monkeypatch.chdir(tmp_path)
    Path("own.csv").write_text("video,query,start,end\na.mp4,one,1,2\na.mp4,two,1:15,80\n")
    with pytest.raises(AnnotationError) as caught:
        load_moments("own.csv")
    assert str(caught.value) == " ".join(shown.split())
