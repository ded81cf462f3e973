"""Atomic writes: whole or not at all, by several writers, and errors that name the file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from timelens_plugins.atomic import refuse_special, replacing, write_whole


def test_the_old_content_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_whole(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    with pytest.raises(UnicodeEncodeError):  # after the first half was written
        write_whole(path, "half" * 100_000 + "\ud800")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text(str(1 / 0))
    assert path.read_bytes() == "é\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    texts = [str(n) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(path, text), texts))
    assert path.read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    program = (
        "import resource, signal, sys\n"
        "from timelens_plugins.atomic import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(sys.argv[1], 'x' * 5000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"File too large: '{path}'" in done.stderr
    assert not list(tmp_path.iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_whole(path, "x")


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing/f'"):
        write_whole(tmp_path / "missing" / "f", "x")
    (tmp_path / "d").mkdir()
    with pytest.raises(IsADirectoryError, match=r"/d'$"):
        write_whole(tmp_path / "d", "x")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    write_whole(link, "new")
    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("kept", "new", False)


def test_devices_and_pipes_are_never_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for path in (pipe, link):
        with pytest.raises(OSError, match=f"^{path}: a device, pipe or socket"):
            write_whole(path, "x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
    for name in ("/dev/null", "/dev/stdout", "/dev/new"):  # stdout may be a file, new is not there
        with pytest.raises(OSError, match="name a file to write"):
            refuse_special(Path(name))
