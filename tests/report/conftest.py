"""Runs to report on, and a browser to look at the page with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_runs import make_run, until

from timelens_plugins.results import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TIMEOUT = 20_000  # milliseconds that the browser may take for a step on a busy machine


@pytest.fixture
def runs() -> list[Run]:
    """Two runs over the same 60 moments of two subsets, the second better than the first."""
    return [make_run("SFT", seed=1, noise=4.0, failures=0.1), make_run("RLVR", seed=2, noise=1.5, failures=0.03)]


Opener = Callable[..., "Page"]


@pytest.fixture
def open_report(browser: Browser) -> Iterator[Opener]:
    """Opens a report and watches it: at the end, nothing was said on the console and nothing was fetched but clips.

    ``says``: what the console may say.
    """
    opened: list[tuple[Any, list[str], list[str]]] = []

    def open_page(path: Path, *, says: str | None = None, **options: Any) -> Page:
        page = browser.new_page(**options)
        page.set_default_timeout(TIMEOUT)
        said: list[str] = []
        fetched: list[str] = []
        page.on("console", lambda message: (says and says in message.text) or said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        # What the policy refuses never leaves, and shows on the console instead.
        page.on("requestfailed", lambda request: request.failure == "csp" and fetched.remove(request.url))
        opened.append((page, said, fetched))
        page.goto(path.as_uri())
        until(page, "document.documentElement.dataset.ready === 'true'")
        return page

    yield open_page
    for page, said, fetched in opened:
        assert not said
        assert all(url.startswith(("file:///", "data:", "blob:")) for url in fetched), fetched
        page.close()
