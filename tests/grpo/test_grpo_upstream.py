"""What the trainer relies on is there in the installed TRL, and in every release that is put beside it.

``TIMELENS_TRL_RELEASES`` names a folder of releases, each made by
``pip install --no-deps --target FOLDER/trl-1.7.0 trl==1.7.0``. For each, names are compared and three steps are run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import trl
from trl.trainer import grpo_trainer

from timelens_plugins.grpo import UpstreamChangedError, upstream

RELEASES = Path(os.environ.get("TIMELENS_TRL_RELEASES", "/nowhere"))

STEPS = """
import sys
from pathlib import Path
import trl, grpo_runs
from timelens_plugins.grpo import upstream
assert trl.__version__ == sys.argv[4], trl.__version__
upstream.check_upstream()
moments = grpo_runs.training_moments(Path(sys.argv[2]))
for share in (True, False):
    trainer = grpo_runs.make_trainer(Path(sys.argv[1]), moments, Path(sys.argv[3]), share_prefix=share, beta=0.1,
                                     num_iterations=2, gradient_checkpointing=True, on_bad_video="skip",
                                     log_completions=True)
    trainer.train()
    print("RESULT", grpo_runs.history(trainer, "loss", "grad_norm", "kl"))
"""


def test_the_installed_release() -> None:
    assert upstream.differences(grpo_trainer) == []
    upstream.check_upstream()


def test_a_changed_release_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(grpo_trainer.GRPOTrainer):
        def _calculate_rewards(self, prompts: Any, completions: Any) -> None: ...

    changed = types.SimpleNamespace(GRPOTrainer=Changed)
    found = upstream.differences(changed)  # type: ignore[arg-type]
    assert any("_calculate_rewards takes" in line for line in found)
    assert any("self._step += 1" in line for line in found), "the subclass's source has none of the lines"
    monkeypatch.setattr(upstream, "differences", lambda module: ["GRPOTrainer.log is gone"])
    with pytest.raises(UpstreamChangedError, match=rf"TRL {trl.__version__} is not supported: GRPOTrainer.log is gone"):
        upstream.check_upstream()


@pytest.mark.parametrize("release", sorted(p.name for p in RELEASES.glob("trl-1.*")) or [None])
def test_other_releases(
    release: str | None, tiny_checkpoints: dict[str, Path], annotations: Path, tmp_path: Path
) -> None:
    if release is None:
        pytest.skip("no releases: TIMELENS_TRL_RELEASES names a folder of them")
    paths = [str(RELEASES / release), str(Path(__file__).parent)]
    arguments = [str(tiny_checkpoints["qwen3_vl"]), str(annotations), str(tmp_path), release.removeprefix("trl-")]
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shared, plain = [numbers(line) for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert len(shared) == 9
    assert shared == pytest.approx(plain, rel=1e-4, abs=1e-5)


def numbers(line: str) -> list[float]:
    """The numbers of a printed list of tuples."""
    return [
        float(number) for number in line.removeprefix("RESULT").replace("None", "0").translate(_NO_BRACKETS).split(",")
    ]


_NO_BRACKETS = str.maketrans("", "", "[]() ")
