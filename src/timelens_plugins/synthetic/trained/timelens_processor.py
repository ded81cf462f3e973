"""This checkpoint needs TimeLensQwen3VLProcessor of the package timelens-plugins.

    pip install 'timelens-plugins[video] @ file:///PATH'    # of a clone or a wheel: it is in no package index

    from timelens_plugins.encodings import load_processor
    processor = load_processor("this folder")

or `import timelens_plugins.encodings` before `AutoProcessor.from_pretrained`. The class of transformers it extends,
Qwen3VLProcessor, loads this folder as well, but writes times into prompts in its own way only.
"""

from timelens_plugins.encodings import TimeLensQwen3VLProcessor

__all__ = ["TimeLensQwen3VLProcessor"]
