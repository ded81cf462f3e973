"""From a configuration file and flags to settings: one name for each thing, and unknown names are errors.

A YAML file (``--config``) gives defaults, flags come after it. Its folder can be imported from, for rewards of one's
own that lie beside it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from trl import TrlParser

from timelens_plugins.recipe.drawing import DRAWINGS, Drawing, drawing
from timelens_plugins.renamed import refuse_renamed

__all__ = ["from_dict", "parse"]


def parse(settings: Sequence[type], arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """The command line's settings, one object for each class.

    Args:
        settings: dataclasses; :class:`~timelens_plugins.recipe.drawing.Drawing` stands for that of the value of
            ``difficulty``.
        arguments: default: those of the process.

    Raises:
        ValueError: an unknown name, a name that has changed, a value that cannot work, a variable in a path that is not
            set.
    """
    reader = _Parser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config", action="append")
    asked, given = reader.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    reader.add_argument("--difficulty")
    chosen, _ = reader.parse_known_args(given)
    content: dict[str, Any] = {}
    where = "--config"
    if asked.config is not None:
        if len(asked.config) > 1:
            raise ValueError(f"--config is given {len(asked.config)} times: one file holds the settings")
        where = f"--config {asked.config[0]}"
        content = _read(Path(asked.config[0]), where)
        _importable(Path(asked.config[0]).parent)
    flags = [text[2:].partition("=")[0] for text in given if text.startswith("--")]
    refuse_renamed(content, where)
    refuse_renamed(flags, "flags")
    choice = str(chosen.difficulty or content.get("difficulty", "none"))
    classes = _chosen(settings, choice, [*content, *flags])
    for name, value in content.pop("env", {}).items():
        os.environ[str(name)] = str(value)
    content = _checked(content, classes, where)
    parser = _Parser(classes, allow_abbrev=False)
    known = {flag.lstrip("-").replace("-", "_") for action in parser._actions for flag in action.option_strings}
    _refuse_unknown([flag.replace("-", "_") for flag in flags], known, "flags")
    parser.set_defaults_with_config(**content)
    return _with_paths(parser.parse_args_into_dataclasses(given))


class _Parser(TrlParser):
    """Faults are errors as all others are, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def from_dict(settings: Sequence[type], content: Mapping[str, Any]) -> tuple[Any, ...]:
    """As :func:`parse`, from a dictionary."""
    refuse_renamed(content)
    classes = _chosen(settings, content.get("difficulty", "none"), content)
    return _with_paths(TrlParser(classes).parse_dict(dict(content)))


def _chosen(settings: Sequence[type], choice: Any, names: Any) -> list[type]:
    """The classes, with the drawing that is chosen; names of another one are refused with the reason."""
    if Drawing not in settings:
        return list(settings)
    if choice not in DRAWINGS:
        drawing(choice)  # says which there are
    known = {name for cls in DRAWINGS.values() for name in cls.__dataclass_fields__}
    useless = sorted({n for n in names if n in known} - set(DRAWINGS[choice].__dataclass_fields__))
    if useless:
        drawing(choice, **dict.fromkeys(useless))
    return [DRAWINGS[choice] if cls is Drawing else cls for cls in settings]


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"{where}: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: not a mapping of settings")
    if not isinstance(content.get("env", {}), dict):
        raise ValueError(f"{where}: env must be a mapping of variables, got {content['env']!r}")
    return {str(name): value for name, value in content.items()}


class _Loader(yaml.SafeLoader):
    """Names that stand twice in one mapping are an error: YAML's readers keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice} stands {names.count(twice)} times")
        return super().construct_mapping(node, deep)


def _checked(content: Mapping[str, Any], classes: Sequence[type], where: str) -> dict[str, Any]:
    """The content of a file with one text for a list as a list, as flags are read.

    Raises:
        ValueError: an unknown name, or a value of another type than the setting's; numbers as text are read later.
    """
    hints: dict[str, Any] = {}
    for cls in classes:
        known = get_type_hints(cls)
        hints |= {field.name: known[field.name] for field in fields(cls) if field.init}
    _refuse_unknown(content, hints.keys(), where)
    checked = dict(content)
    for name, value in content.items():
        kinds = _kinds(hints[name])
        if isinstance(value, str):
            checked[name] = [value] if list in kinds and str not in kinds else value
        elif not any(_fits(value, kind) for kind in kinds):
            said = " or ".join(_SAID.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds)
            raise ValueError(f"{where}: {name} must be {said}, got {value!r}")
    return checked


_SAID = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list", dict: "a mapping",
    NoneType: "nothing",
}  # fmt: skip


def _kinds(hint: Any) -> list[Any]:
    """The types that a hint allows, lists and mappings without what they hold."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    if origin is Literal:
        return [type(value) for value in get_args(hint)]
    return [origin or hint]


def _fits(value: Any, kind: Any) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    return kind not in _SAID or isinstance(value, (int, float) if kind is float else kind)


def _refuse_unknown(names: Iterable[str], known: Set[str], where: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(f"{where}: unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""))


_PATHS = (
    *("annotations", "video_root", "synthetic_folder", "model_name_or_path", "difficulty_file", "cache"),
    *("output", "output_dir", "resume_from_checkpoint"),
)


def _with_paths(objects: Iterable[Any]) -> tuple[Any, ...]:
    """The objects, with ``~`` and environment variables in paths replaced: no shell has read a configuration file.

    Raises:
        ValueError: a variable that is not set; a folder would be made that has its name.
    """
    found = tuple(objects)
    for one in found:
        for name in _PATHS:
            value = getattr(one, name, None)
            if isinstance(value, str):
                path = os.path.expandvars(os.path.expanduser(value))
                if variable := re.search(r"\$(\w+|\{[^}]*\})", path):
                    raise ValueError(f"{name}: {value}: the environment variable {variable[0]} is not set")
                setattr(one, name, path)
    return found


def _importable(folder: Path) -> None:
    """Modules beside the configuration, and in the working folder, can be imported; after all that is installed."""
    for path in (str(folder.resolve()), str(Path.cwd())):
        if path not in sys.path:
            sys.path.append(path)
