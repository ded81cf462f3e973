"""What a video file's name ends in: the one list, for annotations, tasks, archives and reports."""

from __future__ import annotations

__all__ = ["VIDEO_SUFFIXES"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv")
"""In lower case, in order of preference where files differ in nothing else. Which *contents* are read is decided by
:mod:`timelens_plugins.video.source`."""
