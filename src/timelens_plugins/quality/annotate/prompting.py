"""The texts that ask: one file each, shipped in ``prompts/`` beside this module, replaced by files of the same names.

A text says ``{name}`` where a value goes; all other braces are text. What the answers must look like is fixed and told
in the texts, so a replaced one has to ask for the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "NEEDED", "Prompts", "read_prompts"]

FOLDER = Path(__file__).with_name("prompts")

NEEDED: Mapping[str, tuple[str, ...]] = {
    "propose": (),
    "query": ("event",),
    "verify": ("query",),
    "repair": ("query",),
    "refine": ("query",),
}
"""Name of a text -> the values without which it could not ask. Each also knows those in its shipped file."""


@dataclass(frozen=True)
class Prompts:
    """The texts by name."""

    texts: Mapping[str, str]

    def ask(self, name: str, **values: str | float) -> str:
        """A text with its values; numbers in seconds, with one decimal."""
        text = self.texts[name]
        for value, given in values.items():
            text = text.replace("{" + value + "}", f"{given:.1f}" if isinstance(given, float) else str(given))
        return text


def read_prompts(folder: str | Path | None = None) -> Prompts:
    """The shipped texts, and in their place those of ``folder``: ``propose.txt`` and so on.

    Raises:
        ValueError: no folder, a text that is none of these, that cannot be read, or that lacks a value it needs.
    """
    texts = {name: (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip() for name in NEEDED}
    if folder is None:
        return Prompts(texts)
    own = sorted(Path(folder).glob("*.txt"))
    if not own:
        raise ValueError(f"prompts: {folder} holds no text file; those that ship are in {FOLDER}")
    for path in own:
        if path.stem not in NEEDED:
            raise ValueError(f"prompts: {path} is none of {', '.join(f'{name}.txt' for name in NEEDED)}")
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ValueError(f"prompts: {path} cannot be read: {error}") from error
        if lacking := [value for value in NEEDED[path.stem] if "{" + value + "}" not in text]:
            raise ValueError(f"prompts: {path} does not say {', '.join('{' + value + '}' for value in lacking)}")
        texts[path.stem] = text
    return Prompts(texts)
