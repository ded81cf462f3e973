"""How sure ``timelens ground`` may be: confidence from the agreement of answers, and how far it holds.

    python benchmarks/confidence.py demo-output/benchmark [--fit FOLDER] [--model PATH] [--write]

The folders hold annotations and videos in TimeLens-Bench's layout, such as those of `timelens demo`. The calibration is
fitted on the moments of FOLDER (by default 600 of the demo's kind with another seed, made on the spot) and tested on
those of the first folder. By default for the model that the demo trains, which saw neither. A moment is right where its
IoU with the truth is at least 0.5. ``--write`` leaves the calibration beside the checkpoint.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timelens_plugins.families.load import load_model
from timelens_plugins.grounding import find_moments
from timelens_plugins.grounding.calibration import RIGHT, fit_calibration, write_calibration
from timelens_plugins.moments import group_by_video, load_moments
from timelens_plugins.spans import set_iou
from timelens_plugins.synthetic.benchmark import SUBSETS, write_benchmark
from timelens_plugins.synthetic.grounder import TRAINED_CHECKPOINT

Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--fit", type=Path)
    parser.add_argument("--model", default=str(TRAINED_CHECKPOINT))
    parser.add_argument("--answers", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--bins", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        fitted_on = args.fit or write_benchmark(folder, moments=200, seed=1000)
        agreement, ious, _ = asked(args, fitted_on)
    calibration = fit_calibration(agreement.tolist(), (ious >= RIGHT).tolist(), args.answers, args.temperature)
    print(calibration)
    agreement, ious, first = asked(args, args.benchmark)
    table(agreement, np.array([calibration.confidence(a) for a in agreement]), ious, args.bins)
    print(f"the first of the answers alone: right {100 * (first >= RIGHT).mean():.1f}%, mIoU {100 * first.mean():.1f}")
    if args.write:
        write_calibration(calibration, args.model)
    return 0


def asked(args: argparse.Namespace, benchmark: Path) -> Arrays:
    """Of every moment: agreement, IoU of the moment found, IoU of the first answer alone."""
    model, processor = load_model(args.model, times="stream")
    rows = []
    for subset in SUBSETS:
        moments = load_moments(benchmark / f"{subset}-timelens.json", format="timelens_bench")
        for group in group_by_video(moments).values():
            video = str(benchmark / "videos" / subset / f"{group[0].video_id}.mp4")
            queries = [moment.query for moment in group]
            found = find_moments(
                model, processor, video, queries, answers=args.answers, temperature=args.temperature,
                max_new_tokens=64, duration=group[0].duration,
            )  # fmt: skip
            for moment, result in zip(group, found, strict=True):
                truth = moment.spans
                rows.append((result.agreement, set_iou(result.spans, truth), set_iou(result.readings[0], truth)))
    agreement, ious, first = np.array(rows, dtype=np.float64).T
    return agreement, ious, first


def table(
    agreement: NDArray[np.float64], confidence: NDArray[np.float64], ious: NDArray[np.float64], bins: int
) -> None:
    """Reliability, over bins of equally many moments by confidence, and figures over all."""
    right = ious >= RIGHT
    order = np.argsort(confidence, kind="stable")
    print(f"{'agreement':>9} {'confidence':>10} {'moments':>8} {'right':>7} {'mIoU':>6}")
    error = 0.0
    for part in (*np.array_split(order, bins), order):
        said, true = confidence[part].mean(), right[part].mean()
        error += abs(said - true) * len(part) / len(order) if len(part) < len(order) else 0.0
        miou = 100 * ious[part].mean()
        print(f"{agreement[part].mean():9.2f} {said:10.2f} {len(part):8} {100 * true:6.1f}% {miou:6.1f}")
    above = agreement[right][:, None] - agreement[~right][None]
    rank = ((above > 0) + 0.5 * (above == 0)).mean() if above.size else float("nan")
    print(f"calibration error {100 * error:.1f} points; the right one of a pair agrees more in {100 * rank:.0f}%")


if __name__ == "__main__":
    raise SystemExit(main())
