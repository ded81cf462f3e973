"""Archives of videos: unpacked once, completely, and never outside their folder."""

import io
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
