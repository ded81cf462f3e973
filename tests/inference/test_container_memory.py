"""Memory limits of containers, in folders as the kernel shows them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from timelens_plugins.inference import decoding_limits
from timelens_plugins.inference.container_memory import free_in_container

GB = 10**9


def group(folder: Path, limit: int | str, used: int, cache: int = 0, v1: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{'total_' if v1 else ''}inactive_file {cache}\n")


def inside(root: Path, lines: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    return root / "sys/fs/cgroup"


def test_a_container_of_the_second_version(tmp_path: Path) -> None:
    mount = inside(tmp_path, "0::/\n")
    group(mount, 8 * GB, 5 * GB, cache=GB)
    assert free_in_container(tmp_path) == 4 * GB
    group(mount, "max", 5 * GB)
    assert free_in_container(tmp_path) is None
    group(mount, 4 * GB, 5 * GB)
    assert free_in_container(tmp_path) == 0


def test_a_group_around_it_bounds_it_too(tmp_path: Path) -> None:
    mount = inside(tmp_path, "0::/system.slice/job:1.scope\n")
    group(mount / "system.slice/job:1.scope", "max", GB)
    group(mount / "system.slice", 6 * GB, 4 * GB)
    assert free_in_container(tmp_path) == 2 * GB


@pytest.mark.parametrize("seen", ["docker/0123abcd", "."])  # the host's path, or only what is mounted in the container
def test_a_container_of_the_first_version(tmp_path: Path, seen: str) -> None:
    mount = inside(tmp_path, "5:cpu,cpuacct:/docker/0123abcd\n4:hugetlb,memory:/docker/0123abcd\n0::/docker/0123abcd\n")
    group(mount / "memory" / seen, 8 * GB, 5 * GB, cache=GB, v1=True)
    assert free_in_container(tmp_path) == 4 * GB


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert free_in_container(tmp_path) is None


def test_the_smaller_of_machine_and_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    available = psutil.virtual_memory().available
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": available}))
    for left, expected in ((1000, 1000), (2 * available, available), (None, available)):
        monkeypatch.setattr(decoding_limits, "free_in_container", lambda left=left: left)
        assert decoding_limits._free(torch.device("cpu")) == expected
