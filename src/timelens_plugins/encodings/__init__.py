"""Telling a language model when each frame is: time encodings for transformers processors.

``load_processor`` gives the right processor for a checkpoint; ``InterleavedTimestampsMixin`` makes one of any Qwen-like
processor; ``register_encoding`` adds a way to tell times; ``snap_spans`` fits training targets to the sampled times.
"""

from timelens_plugins.encodings.encoding import ENCODINGS, TIMESTAMP_FORMAT, Encoding, find_encoding, register_encoding
from timelens_plugins.encodings.messages import build_messages
from timelens_plugins.encodings.mixin import InterleavedTimestampsMixin
from timelens_plugins.encodings.plain_text import tokenize_text
from timelens_plugins.encodings.positions import restore_text_positions
from timelens_plugins.encodings.processors import (
    TimeLensGlm46VProcessor,
    TimeLensQwen2_5_VLProcessor,
    TimeLensQwen3VLProcessor,
    load_processor,
    processor_class,
)
from timelens_plugins.encodings.snapping import snap_spans

__all__ = [
    "ENCODINGS",
    "TIMESTAMP_FORMAT",
    "Encoding",
    "InterleavedTimestampsMixin",
    "TimeLensGlm46VProcessor",
    "TimeLensQwen2_5_VLProcessor",
    "TimeLensQwen3VLProcessor",
    "build_messages",
    "find_encoding",
    "load_processor",
    "processor_class",
    "register_encoding",
    "restore_text_positions",
    "snap_spans",
    "tokenize_text",
]
