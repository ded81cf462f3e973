"""``timelens doctor``: check this machine, and a checkpoint, for what would make results wrong or slow."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timelens_plugins.inspection.findings import Finding

EPILOG = """\
Every warning and everything broken comes with a remedy (→). The exit status is 1 if something is broken.
With --model, the model is loaded and run on small made clips: its logits must change with the video.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens doctor``."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", metavar="PATH", help="checkpoint folder or hub id to check as well")
    parser.add_argument("--no-forward", action="store_true", help="with --model: do not load and run the model itself")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the findings as they come; 1 if something is broken."""
    from timelens_plugins.inspection.findings import as_json, render, worst

    if args.no_forward and args.model is None:
        raise ValueError("--no-forward says how to check a checkpoint; pass --model as well")
    findings: list[Finding] = []

    def kept() -> Iterator[Finding]:
        for finding in _findings(args):
            findings.append(finding)
            yield finding

    logging.disable(logging.WARNING)  # what is warned about is among the findings
    try:
        if args.json:
            print(as_json(list(kept())))
        else:
            for line in render(kept()):
                print(line, flush=True)
    finally:
        logging.disable(logging.NOTSET)
    return 1 if worst(findings) == "broken" else 0


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    from timelens_plugins.inspection.findings import guarded
    from timelens_plugins.inspection.versions import check_imports, check_versions, installed_version

    yield from guarded("versions", check_versions)
    yield from guarded("imports", check_imports)
    if any(installed_version(name) is None for name in ("torch", "transformers", "av")):
        return
    yield from guarded("names relied on", _names)
    yield from guarded("video", _video)
    yield from guarded("devices", _devices)
    yield from guarded("lmms-eval", _lmms_eval)
    yield from guarded("checkpoint" if args.model else "stand-ins", lambda: _checkpoint(args))


# One function a section: what cannot even be imported is for `guarded` to say.


def _names() -> Iterator[Finding]:
    from timelens_plugins.inspection.relied_on import check_relied_on

    yield from check_relied_on()


def _video() -> Iterator[Finding]:
    from timelens_plugins.inspection.environment import check_video

    yield from check_video()


def _devices() -> Iterator[Finding]:
    from timelens_plugins.inspection.environment import check_devices

    yield from check_devices()


def _lmms_eval() -> Iterator[Finding]:
    from timelens_plugins.inspection.environment import check_lmms_eval

    yield from check_lmms_eval()


def _checkpoint(args: argparse.Namespace) -> Iterator[Finding]:
    import transformers

    from timelens_plugins.inspection.checkpoint import check_checkpoint, check_stand_ins

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        if args.model is None:
            yield from check_stand_ins()
        else:
            yield from check_checkpoint(args.model, forward=not args.no_forward)
    finally:
        transformers.logging.set_verbosity(before)
