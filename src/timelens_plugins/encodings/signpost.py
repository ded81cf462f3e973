"""What a saved processor looks like to a program that has not imported this package.

``processor_config.json`` names our class, which ``AutoProcessor`` finds once :mod:`timelens_plugins.encodings` is
imported. Without that import it would not fail: it returns a bare tokenizer, and prompts lose their video without a
word. So the file also says, in transformers' own way (``auto_map``), that the class is not transformers', and
``AutoProcessor`` stops and points to a small file in the folder that says what to do. No code of a checkpoint is ever
run by this package, and programs that name the stock class (``Qwen3VLProcessor.from_pretrained``, vLLM) load it as
before.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["auto_map", "write_signpost"]

_MODULE = "timelens_processor"

_TEXT = '''\
"""This checkpoint needs {name} of the package timelens-plugins.

    pip install 'timelens-plugins[video] @ file:///PATH'    # of a clone or a wheel: it is in no package index

    from timelens_plugins.encodings import load_processor
    processor = load_processor("this folder")

or `import timelens_plugins.encodings` before `AutoProcessor.from_pretrained`. The class of transformers it extends,
{stock}, loads this folder as well, but writes times into prompts in its own way only.
"""

from {module} import {name}

__all__ = ["{name}"]
'''


def auto_map(cls: type) -> dict[str, str]:
    """The entry of ``processor_config.json`` that leads to the signpost."""
    return {"AutoProcessor": f"{_MODULE}.{cls.__name__}"}


def write_signpost(folder: Path, cls: type) -> None:
    """Writes the file that ``auto_map`` names."""
    stock = next(c.__name__ for c in cls.__mro__ if c.__module__.startswith("transformers."))
    module = __package__ if cls.__module__.startswith(f"{__package__}.") else cls.__module__
    text = _TEXT.format(module=module, name=cls.__name__, stock=stock)
    (folder / f"{_MODULE}.py").write_text(text, encoding="utf-8")
