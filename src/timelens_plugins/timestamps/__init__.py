"""Telling a language model when each frame is: time encodings for transformers processors.

``load_processor`` gives the right processor for a checkpoint; ``InterleavedTimestampsMixin`` makes one of any Qwen-like
processor; ``snap_spans`` fits training targets to the sampled times.
"""

from timelens_plugins.timestamps.encodings import ENCODINGS, TIMESTAMP_FORMAT, Encoding
from timelens_plugins.timestamps.messages import build_messages
from timelens_plugins.timestamps.mixin import InterleavedTimestampsMixin
from timelens_plugins.timestamps.positions import restore_text_positions
from timelens_plugins.timestamps.processors import (
    FAMILIES,
    TimeLensQwen2_5_VLProcessor,
    TimeLensQwen3VLProcessor,
    load_processor,
)
from timelens_plugins.timestamps.snapping import snap_spans

__all__ = [
    "ENCODINGS",
    "FAMILIES",
    "TIMESTAMP_FORMAT",
    "Encoding",
    "InterleavedTimestampsMixin",
    "TimeLensQwen2_5_VLProcessor",
    "TimeLensQwen3VLProcessor",
    "build_messages",
    "load_processor",
    "restore_text_positions",
    "snap_spans",
]
