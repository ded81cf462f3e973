"""Unpacks TimeLens-Bench's video archives into a folder of videos: once, safely, resumable, one process at a time.

Only regular files with a video's suffix are written, under their base name, so nothing can leave the target folder
whatever an archive's member names say; links and devices are refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from filelock import FileLock
from tqdm import tqdm

__all__ = ["unpack_shards"]

logger = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def unpack_shards(shards: Path, videos: Path) -> int:
    """Write the videos of every archive in ``shards`` to ``videos``; returns how many files were written.

    An archive that was unpacked completely leaves a marker and is not read again, unless its size or time changed.
    Where ``videos`` cannot be written and holds videos already, nothing is unpacked, and the log says so.
    Files are written under a temporary name and renamed, so a kill leaves no half video.

    Raises:
        ValueError: an archive that is broken, or holds a link, a device or two members with one name.
        OSError: the target folder cannot be written; the message says which.
    """
    archives = sorted(p for p in shards.iterdir() if p.name.endswith(ARCHIVE_SUFFIXES)) if shards.is_dir() else []
    if all(_marker(archive, videos).exists() for archive in archives):
        return 0
    written = 0
    with contextlib.ExitStack() as stack:
        try:
            videos.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(videos / ".unpacking.lock"))
        except OSError as error:
            if not _holds_videos(videos):
                raise
            logger.warning("%s: not unpacked (%s); the videos in %s are used as they are", shards, error, videos)
            return 0
        for archive in tqdm(archives, desc=f"Unpacking {shards.name}", unit="archive"):
            marker = _marker(archive, videos)
            if marker.exists():  # another process was faster
                continue
            written += _unpack(archive, videos)
            marker.touch()
    return written


def _holds_videos(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in VIDEO_SUFFIXES for path in folder.iterdir())


def _marker(archive: Path, videos: Path) -> Path:
    stat = archive.stat()
    return videos / f".{archive.name}.{stat.st_size}.{stat.st_mtime_ns}.unpacked"


def _unpack(archive: Path, videos: Path) -> int:
    names: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise ValueError(
                        f"{archive}: member '{member.name}' is a link or a device; only files are unpacked"
                    )
                name = PurePosixPath(member.name).name
                if not name.lower().endswith(VIDEO_SUFFIXES) or name.startswith("."):
                    logger.info("%s: '%s' is not a video and stays packed", archive, member.name)
                    continue
                if name in names:
                    raise ValueError(f"{archive}: '{names[name]}' and '{member.name}' would both become {name}")
                names[name] = member.name
                _write(tar, member, videos / name)
            _check_end(tar)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # the target folder, not the archive
            raise
        raise ValueError(f"{archive} cannot be read ({error}); fetch it again") from error
    return len(names)


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a cut-off header for the end of the archive; a real end is a block of zeros, and a whole stream."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the archive is cut off")
    while tar.fileobj.read(1 << 20):  # a compressed stream checks its own end
        pass


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if target.exists() and target.stat().st_size == member.size:
        return
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    partial = target.with_name(f".{target.name}.partial")
    with source, partial.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    os.replace(partial, target)
