"""One OpenAI-compatible endpoint: a request with its retries, the rate limit of all threads, and the key.

The key comes from the environment and goes into the header of a request, nowhere else: it is taken out of everything
that a server says before that reaches a log.
"""

from __future__ import annotations

import email.utils
import os
import random
import threading
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import httpx

from timelens_plugins.inference.api.account import Account
from timelens_plugins.inference.api.replies import (
    Reply,
    UnreadableReplyError,
    read_refusal,
    read_reply,
    server_message,
)

__all__ = ["DEFAULT_URL", "Endpoint", "EndpointError", "RequestFailedError", "StoppedError", "read_key"]

DEFAULT_URL = "https://api.openai.com/v1"
_LONGEST_WAIT = 300.0  # seconds, whatever a server asks for
_PASSING = frozenset({408, 409, 425, 429})  # and all from 500 on
_ONE_REQUEST = frozenset({400, 413, 415, 422})  # what is wrong is the request, not the endpoint


class EndpointError(RuntimeError):
    """The endpoint cannot be used as asked: no request will succeed."""


class RequestFailedError(RuntimeError):
    """One request has no reply, though it may have been made several times."""


class StoppedError(RuntimeError):
    """The run ends, and the request was not made, or not once more."""


class Endpoint:
    """Makes requests; safe with several threads.

    Args:
        base_url: to which ``/chat/completions`` is added.
        key_variable: environment variable that holds the key. An endpoint on this machine needs none.
        account: what is counted.
        requests_per_minute: of all threads together; None for no limit of our own.
        max_retries: how often a request is made again after a fault that may pass: 408, 409, 425, 429, 5xx, a
            connection that fails or is cut, a reply that is no completion.
        retry_seconds: wait before the first repetition; doubled each time, shortened by up to half at random. Where
            the server says how long to wait (``Retry-After``), that counts, for all threads.
        timeout: seconds that a request may take without a byte from the server.

    Raises:
        ValueError: an address that is none, or that holds a user, a password or a query.
        EndpointError: the variable of the key is not set.
    """

    def __init__(
        self,
        base_url: str,
        key_variable: str,
        account: Account,
        *,
        requests_per_minute: float | None = None,
        max_retries: int = 6,
        retry_seconds: float = 1.0,
        timeout: float = 600.0,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.account = account
        self._interval = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._retries, self._wait = max_retries, retry_seconds
        self._lock = threading.Lock()
        self._next = 0.0  # when a request may go out
        self._stopped = threading.Event()
        self._key = read_key(self.base_url, key_variable)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(timeout, connect=30.0),
            limits=httpx.Limits(max_connections=None),
        )

    def complete(self, body: Mapping[str, Any]) -> Reply:
        """Ask for a chat completion.

        Raises:
            EndpointError: wrong key, wrong address, unknown model, no credit.
            RequestFailedError: no reply to this request.
            StoppedError: :meth:`stop` was called.
        """
        fault = ""
        for attempt in range(self._retries + 1):
            self._wait_for_turn()
            self.account.sent()
            wait: float | None = None
            try:
                response = self._client.post(f"{self.base_url}/chat/completions", json=dict(body))
            except httpx.HTTPError as error:
                kind, fault = "a failed connection", f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    try:
                        reply = read_reply(response.content)
                    except UnreadableReplyError as error:
                        kind, fault = "an unreadable reply", str(error)
                    else:
                        self.account.replied(reply)
                        return reply
                else:
                    refusal = self._judge(response)
                    if refusal is not None:
                        self.account.replied(refusal)
                        return refusal
                    kind = f"HTTP {response.status_code}"
                    fault = f"{kind}: {server_message(response.content)[1]}"
                    wait = _retry_after(response.headers.get("retry-after"))
            if attempt < self._retries:
                self._pause(attempt, wait, everyone=kind == "HTTP 429")
                self.account.repeated(kind)
        raise RequestFailedError(self._clean(f"{self.base_url}: no reply in {self._retries + 1} requests; {fault}"))

    def stop(self) -> None:
        """Let no further request go out; those under way come to their end."""
        self._stopped.set()

    def close(self) -> None:
        """Give connections back."""
        self._client.close()

    def _judge(self, response: httpx.Response) -> Reply | None:
        """A refusal; None for a fault that may pass; every other is raised."""
        status, body = response.status_code, response.content
        code, message = server_message(body)
        said = self._clean(f"{self.base_url}: HTTP {status}{f' ({code})' if code else ''}: {message}")
        if code == "insufficient_quota":
            raise EndpointError(said)
        if status in _PASSING or status >= 500:
            return None
        if (refusal := read_refusal(body)) is not None:
            return refusal
        if status in _ONE_REQUEST:
            raise RequestFailedError(said)
        raise EndpointError(said)

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if self._stopped.wait(turn - now):
            raise StoppedError

    def _pause(self, attempt: int, asked: float | None, everyone: bool) -> None:
        """Before a request is made once more; where there were too many requests, no thread makes one meanwhile."""
        wait = min(self._wait * 2**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1.0)
        if asked is not None:
            wait = min(max(asked, wait), _LONGEST_WAIT)
        if everyone:
            with self._lock:
                self._next = max(self._next, time.monotonic() + wait)
        if self._stopped.wait(wait):
            raise StoppedError

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def read_key(base_url: str, key_variable: str) -> str:
    """The key of an endpoint, from the environment; ``""`` where it needs none.

    Raises:
        ValueError: an address that is none, or that holds a user, a password or a query.
        EndpointError: the variable is not set, or holds no key.
    """
    key = os.environ.get(key_variable, "").strip()
    if not key and not _on_this_machine(_checked_url(base_url)):
        raise EndpointError(f"{base_url}: set {key_variable} to the key of this endpoint")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointError(f"{key_variable} holds characters that no key has")
    return key


def _checked_url(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"base_url: {error}") from error
    if url.userinfo or url.query or url.fragment:
        raise ValueError("base_url must hold no user, password, query or fragment; keys come from the environment")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url must begin with http:// or https:// and name a host, got {base_url!r}")
    return str(url).rstrip("/")


def _on_this_machine(base_url: str) -> bool:
    host = httpx.URL(base_url).host
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _retry_after(value: str | None) -> float | None:
    """Seconds, from seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
