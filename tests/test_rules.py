"""The rules of docs/architecture.md that neither a linter nor import-linter checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import timelens_plugins
from timelens_plugins.families import FAMILIES, model_types

PACKAGE = Path(timelens_plugins.__file__).parent
MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}

KNOW_FAMILIES = ("families/", "encodings/", "synthetic/", "demo/")
EXCEPTIONS = {
    "answers/cleaning.py": "control tokens that any model may leave in its answer",
    "upstream/transformers.py": "the list of private names of transformers, which lie in its families' modules",
}
OTHER_NAMES = re.compile(r"qwen[-_]?vl[-_]?(utils|video_reader)", re.IGNORECASE)  # a package: video/ follows its rules


def family_words(text: str) -> list[str]:
    """Names of model families, and markers such as ``<|vision_start|>``, that a text holds."""
    makers = {re.match("[a-z]+", name)[0] for name in (*FAMILIES, *model_types())}  # type: ignore[index]
    words = re.compile("|".join([*map(re.escape, sorted(makers)), r"<\\?\|[^\s|]*\\?\|>"]), re.IGNORECASE)
    return words.findall(OTHER_NAMES.sub("", text))


def test_only_families_and_encodings_know_families() -> None:
    found = {
        name: words
        for name, path in MODULES.items()
        if not name.startswith(KNOW_FAMILIES)
        and name not in EXCEPTIONS
        and (words := family_words(path.read_text(encoding="utf-8")))
    }
    assert not found, f"make it a field of the family's record, or ask the processor: {found}"
    assert all(family_words(MODULES[name].read_text()) for name in EXCEPTIONS), "no exception any more: take it out"


@pytest.mark.parametrize(
    "text", ["if model_type == 'qwen2_5_vl':", "# only Qwen3-VL", "'<|vision_start|>'", r're.compile(r"<\|\w+_pad\|>")']
)
def test_what_counts_as_a_family(text: str) -> None:
    assert family_words(text)
    assert not family_words("as qwen-vl-utils 0.0.14 does; FORCE_QWENVL_VIDEO_READER; qwen_vl_utils")


def test_modules_are_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}
