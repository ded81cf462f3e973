"""From a clip to a prompt: what names a clip, how clips are read ahead, and the one function that builds prompts.

Evaluation, difficulty, both trainers, ``timelens inspect`` and ``timelens ground`` take their prompts from
:meth:`LoadedClip.prompt`.
"""

from timelens_plugins.clips.key import ClipKey
from timelens_plugins.clips.loader import ClipLoader
from timelens_plugins.clips.prompts import LoadedClip, black_clip, chat_text, load_clip
from timelens_plugins.clips.read_ahead import OnBadVideo, ReadAhead

__all__ = [
    "ClipKey",
    "ClipLoader",
    "LoadedClip",
    "OnBadVideo",
    "ReadAhead",
    "black_clip",
    "chat_text",
    "load_clip",
]
