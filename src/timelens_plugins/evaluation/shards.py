"""Unpacks TimeLens-Bench's video archives into a folder of videos: once, safely, resumable, one process at a time.

Only regular files with a video's suffix are written, under their base name, so nothing can leave the target folder
whatever an archive's member names say; links and devices are refused. So is what a few bytes only claim to be: files
that are mostly holes, and contents that shrink as no video does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock
from tqdm import tqdm

from timelens_plugins.atomic import replacing
from timelens_plugins.suffixes import VIDEO_SUFFIXES

__all__ = ["unpack_shards"]

logger = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
MOST_COMPRESSED = 20  # bytes unpacked from one of an archive; real video does not reach 2, drawn pictures hardly 10
ALWAYS_ALLOWED = 64 * 2**20  # bytes unpacked from any archive, which says nothing about small ones


def unpack_shards(shards: Path, videos: Path) -> int:
    """Write the videos of every archive in ``shards`` to ``videos``; returns how many files were written.

    An archive that was unpacked completely leaves a marker and is not read again, unless its size or time changed.
    Where ``videos`` cannot be written and holds videos already, nothing is unpacked, and the log says so.
    Files are written under a temporary name and renamed, so a kill leaves no half video.

    Raises:
        ValueError: an archive that is broken, or holds a link, a device, two members with one name, or far less than
            it would unpack to.
        OSError: a video cannot be written, or the disk has no room for it; names the video.
    """
    archives = (
        sorted(p for p in shards.iterdir() if p.name.endswith(ARCHIVE_SUFFIXES) and p.is_file())
        if shards.is_dir()
        else []
    )
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
        for left in videos.glob(".*.part"):  # by a kill; nobody else writes now
            left.unlink()
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
    held = archive.stat().st_size
    unpacked = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise ValueError(
                        f"{archive}: member '{member.name}' is a link or a device; only files are unpacked"
                    )
                unpacked += member.size
                _check_size(archive, member, held, unpacked)
                name = PurePosixPath(member.name).name
                if not name.lower().endswith(VIDEO_SUFFIXES) or name.startswith("."):
                    logger.info("%s: '%s' is not a video and stays packed", archive, member.name)
                    continue
                if "\0" in name:
                    raise ValueError(f"{archive}: member {member.name!r} has a name that no file can have")
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


def _check_size(archive: Path, member: tarfile.TarInfo, held: int, unpacked: int) -> None:
    """Refuse what unpacks to far more than ``held``, the bytes of the archive; ``unpacked``: of the members so far."""
    parts: Any = member.sparse if member.issparse() else [(0, member.size)]  # offsets and sizes; typeshed has it wrong
    stored = sum(size for _, size in parts)
    if member.size > 2 * stored:
        raise ValueError(
            f"{archive}: member '{member.name}' is {_size(stored)} of data in a file of {_size(member.size)}, the "
            "rest holes: no video, and nothing is unpacked from it"
        )
    if unpacked > held * MOST_COMPRESSED + ALWAYS_ALLOWED:
        raise ValueError(
            f"{archive} holds {_size(held)} and would unpack to more than {_size(unpacked)} (up to '{member.name}'): "
            "no archive of videos; fetch it again, or unpack it yourself if you know it to be right"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


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
    free = shutil.disk_usage(target.parent).free
    if member.size > free:
        raise OSError(
            errno.ENOSPC,
            f"no space for {_size(member.size)}, {_size(free)} are free; make room, then start again",
            str(target),
        )
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    with source, replacing(target) as part, part.open("wb") as file:
        while chunk := _read(source):
            file.write(chunk)


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(1 << 20)
    except OSError as error:  # of the archive: what is written must not be blamed
        raise tarfile.ReadError(str(error)) from error
