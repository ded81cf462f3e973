"""Archives of videos: unpacked once, completely, and never outside their folder."""

import errno
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from timelens_plugins.evaluation.shards import unpack_shards


def write_archive(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link.mp4")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return path


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


def test_videos_of_all_archives_are_unpacked_once(tmp_path: Path) -> None:
    shards, videos = tmp_path / "shards", tmp_path / "videos"
    write_archive(shards / "a.tar.gz", {"charades/A.mp4": b"a" * 1000, "notes.txt": b"no"})
    write_archive(shards / "b.tar.gz", {"deep/er/B.mp4": b"b"})
    assert unpack_shards(shards, videos) == 2
    assert files(videos) == {"A.mp4", "B.mp4"}
    assert (videos / "A.mp4").read_bytes() == b"a" * 1000
    before = (videos / "A.mp4").stat().st_mtime_ns
    assert unpack_shards(shards, videos) == 0
    assert (videos / "A.mp4").stat().st_mtime_ns == before


def test_no_member_leaves_the_folder(tmp_path: Path) -> None:
    shards, videos = tmp_path / "shards", tmp_path / "in" / "videos"
    write_archive(shards / "a.tar.gz", {"../../evil.mp4": b"x", "/abs/other.mp4": b"y"})
    unpack_shards(shards, videos)
    assert files(tmp_path) == {"a.tar.gz", "evil.mp4", "other.mp4"}
    assert files(videos) == {"evil.mp4", "other.mp4"}


def test_links_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "shards" / "a.tar.gz", {}, link="/etc/passwd")
    with pytest.raises(ValueError, match=r"a\.tar\.gz.*link"):
        unpack_shards(tmp_path / "shards", tmp_path / "videos")


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "shards" / "a.tar.gz", {"x/A.mp4": b"1", "y/A.mp4": b"2"})
    with pytest.raises(ValueError, match=r"x/A\.mp4.*y/A\.mp4"):
        unpack_shards(tmp_path / "shards", tmp_path / "videos")


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.99])
def test_a_cut_archive_is_named_and_can_be_replaced(tmp_path: Path, kept: float) -> None:
    members = {f"{n}.mp4": bytes(range(256)) * 40 for n in range(5)}
    archive = write_archive(tmp_path / "shards" / "a.tar.gz", members)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"a\.tar\.gz"):
        unpack_shards(archive.parent, tmp_path / "videos")
    archive.write_bytes(whole)
    unpack_shards(archive.parent, tmp_path / "videos")
    assert {n: (tmp_path / "videos" / n).read_bytes() for n in files(tmp_path / "videos")} == members


def test_no_archives_is_nothing_to_do(tmp_path: Path) -> None:
    assert unpack_shards(tmp_path / "absent", tmp_path / "videos") == 0
    assert not (tmp_path / "videos").exists()


def test_videos_of_a_folder_that_cannot_be_written_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards, videos = tmp_path / "shards", tmp_path / "videos"
    write_archive(shards / "a.tar.gz", {"A.mp4": b"a"})
    (videos / ".unpacking.lock").mkdir(parents=True)  # no lock can be taken, for any user
    with pytest.raises(OSError, match="unpacking"):
        unpack_shards(shards, videos)
    (videos / "A.mp4").write_bytes(b"a")
    assert unpack_shards(shards, videos) == 0
    assert "not unpacked" in caplog.text


def test_claimed_sizes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Holes, a declared size beyond the archive's, and zeros that shrink as no video does."""
    holes = tmp_path / "holes.tar"
    data = tmp_path / "v.mp4"
    with data.open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(300 * 2**20)
    subprocess.run(["tar", "--sparse", "-cf", str(holes), "-C", str(tmp_path), "v.mp4"], check=True)
    assert holes.stat().st_size < 2**20
    claimed = tmp_path / "claimed.tar"
    info = tarfile.TarInfo("v.mp4")
    info.size = 200 * 2**30
    claimed.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(9 * 512))
    zeros = write_archive(tmp_path / "zeros.tar.gz", {"v.mp4": bytes(100 * 2**20)})
    for archive, fault in (
        (holes, "the rest holes"),
        (claimed, "would unpack to more than 200.0 GiB"),
        (zeros, "would unpack to more than 100.0 MiB"),
    ):
        folder = tmp_path / archive.stem
        folder.mkdir()
        archive.rename(folder / archive.name)
        with pytest.raises(ValueError, match=rf"{archive.name}.* {fault}"):
            unpack_shards(folder, tmp_path / "videos")
    assert files(tmp_path / "videos") == set()


def test_a_sparse_file_with_small_holes_is_unpacked(tmp_path: Path) -> None:
    data = tmp_path / "v.mp4"
    with data.open("wb") as file:
        file.write(b"x" * 2**20)
        file.seek(2**20 + 2**19)
        file.write(b"y" * 2**20)
    (tmp_path / "shards").mkdir()
    archive = tmp_path / "shards" / "a.tar"
    subprocess.run(["tar", "--sparse", "-cf", str(archive), "-C", str(tmp_path), "v.mp4"], check=True)
    assert unpack_shards(archive.parent, tmp_path / "videos") == 1
    assert (tmp_path / "videos" / "v.mp4").read_bytes() == data.read_bytes()


def test_a_full_disk_is_blamed_on_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a video is begun that does not fit, and where another program fills the disk meanwhile."""
    archive = write_archive(tmp_path / "shards" / "a.tar.gz", {"A.mp4": bytes(range(256)) * 4096})
    videos = tmp_path / "videos"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 2**19))
        with pytest.raises(OSError, match=r"no space for 1.0 MiB, 0.5 MiB are free.*videos/A\.mp4"):
            unpack_shards(archive.parent, videos)
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from timelens_plugins.evaluation.shards import unpack_shards\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))\n"  # writing fails midway, as on a full disk
        "try:\n    unpack_shards(*map(Path, sys.argv[1:]))\n"
        "except OSError as error:\n    print(error.errno, error.filename)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(archive.parent), str(videos)], capture_output=True, text=True)
    assert run.stdout.split() == [str(errno.EFBIG), str(videos / "A.mp4")], run.stderr
    assert [p.name for p in videos.iterdir()] == [".unpacking.lock"], "no part is left to fill the disk"


def test_what_is_written_follows_no_link(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "shards" / "a.tar.gz", {"A.mp4": b"a" * 10})
    videos, outside = tmp_path / "videos", tmp_path / "outside"
    videos.mkdir()
    outside.write_bytes(b"mine")
    for name in (".A.mp4.partial", ".A.mp4.part", "A.mp4"):
        (videos / name).symlink_to(outside)
    unpack_shards(archive.parent, videos)
    assert outside.read_bytes() == b"mine"
    assert not (videos / "A.mp4").is_symlink()
    assert (videos / "A.mp4").read_bytes() == b"a" * 10
