"""This checkpoint needs TimeLensQwen3VLProcessor of the package timelens-plugins.

    pip install timelens-plugins

    from timelens_plugins.timestamps import load_processor
    processor = load_processor("this folder")

or `import timelens_plugins.timestamps` before `AutoProcessor.from_pretrained`. The class of transformers it extends,
Qwen3VLProcessor, loads this folder as well, but writes times into prompts in its own way only.
"""

from timelens_plugins.timestamps.processors import TimeLensQwen3VLProcessor

__all__ = ["TimeLensQwen3VLProcessor"]
