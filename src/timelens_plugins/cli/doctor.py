"""``timelens doctor``: check this machine, and a checkpoint, for what would make results wrong or slow."""

from __future__ import annotations

import argparse
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
    """Prints the findings; 1 if something is broken."""
    import transformers

    from timelens_plugins.inspection.findings import as_json, render, worst

    transformers.logging.set_verbosity_error()  # what its processors warn about is among the findings
    if args.no_forward and args.model is None:
        raise ValueError("--no-forward says how to check a checkpoint; pass --model as well")
    findings = list(_findings(args))
    print(as_json(findings) if args.json else "\n".join(render(findings)))
    return 1 if worst(findings) == "broken" else 0


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    from timelens_plugins.inspection.checkpoint import check_checkpoint, check_stand_ins
    from timelens_plugins.inspection.environment import check_environment

    yield from check_environment()
    if args.model is None:
        yield from check_stand_ins()
    else:
        yield from check_checkpoint(args.model, forward=not args.no_forward)
