"""The HTML file: one page with its own style, script and data, and a policy under which it can reach nothing else.

Nothing from data becomes markup: it travels as JSON in which ``<``, ``>`` and ``&`` are written as escapes, so that it
cannot end the element it stands in, and the script puts it on the page as text only. The content security policy allows
the page's own style and script, by their digest, embedded pictures, and local video files: no network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

__all__ = ["asset", "json_for_script", "render_page"]

STYLES = ("page.css", "samples.css")
SCRIPTS = ("elements.js", "core.js", "figures.js", "leaderboard.js", "charts.js", "samples.js", "start.js")

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<noscript><p>The script inside this file draws the report: allow scripts for it. Nothing is fetched.</p></noscript>
<div id="report"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def render_page(data: Mapping[str, Any], *, style: str | None = None, script: str | None = None) -> str:
    """The whole file for a :func:`~timelens_plugins.report.payload.payload`, or for a page of another kind.

    Args:
        data: what the script reads; its ``title`` is the page's.
        style, script: of another page; the report's by default.
    """
    style = style or "\n".join(map(asset, STYLES))
    script = "(() => {\n'use strict';\n" + (script or "\n".join(map(asset, SCRIPTS))) + "\n})();"
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "media-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return TEMPLATE.format(
        policy=html.escape(policy, quote=True).replace("&#x27;", "'"),
        title=html.escape(str(data["title"])).encode("utf-8", "replace").decode("utf-8"),
        style=style,
        data=json_for_script(data),
        script=script,
    )


def json_for_script(value: Any) -> str:
    """JSON that may stand in a script element: ASCII, and free of anything an HTML parser looks for.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str, package: str = "timelens_plugins.report") -> str:
    """A style or script that comes with a package."""
    return files(package).joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
