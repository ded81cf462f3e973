"""A local endpoint with chosen faults, which counts what it was asked, what it answered and what it bills."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Mapping[str, Any]

RETRIED = ("429", "500", "503", "cut", "hang-up", "garbage", "empty", "no message", "html")
"""Faults after which a request is made once more."""
FINAL = ("length", "refusal", "filter", "nothing")
"""What an answer may be instead of a whole one."""


def question_of(body: Body) -> str:
    """The text behind the images."""
    return str(body["messages"][-1]["content"][-1]["text"])


def answer_to(body: Body) -> str:
    """What the model behind the endpoint says: a span that depends on all of the request."""
    start = int.from_bytes(hashlib.blake2b(json.dumps(body["messages"]).encode(), digest_size=2).digest()) % 20
    return f"The event happens in {start} - {start + 5} seconds."


class Endpoint:
    """A server on a free port of this machine.

    Args:
        plan: faults for a request, in the order of its trials, ended by one of FINAL where that is what it gets.
        key: that requests must carry; None for any.
        delay: seconds before a reply.
    """

    def __init__(
        self, plan: Callable[[Body], Sequence[str]] = lambda body: (), key: str | None = None, delay: float = 0.0
    ) -> None:
        self.plan, self.key, self.delay = plan, key, delay
        self.requests: list[Body] = []
        self.faults: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # question -> completions that went out whole
        self.prompt_tokens = self.output_tokens = 0
        self.busy = self.most_busy = 0
        self._trials: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def reply(self, body: Body) -> tuple[int, dict[str, str], bytes, str]:
        """Status, headers, body, and what is done to them."""
        with self._lock:
            self.requests.append(body)
            question = json.dumps(body["messages"])
            trial = self._trials[question]
            self._trials[question] += 1
            plan = list(self.plan(body))
            fault = plan[trial] if trial < len(plan) else (plan[-1] if plan and plan[-1] in FINAL else "")
            self.faults[fault] += 1
        error = {"error": {"message": f"fault {fault}", "code": "server_error"}}
        if fault in ("429", "500", "503", "400", "401", "404"):
            return int(fault), {"Retry-After": "0"}, json.dumps(error).encode(), fault
        if fault == "quota":
            return 429, {}, json.dumps({"error": {"message": "pay", "code": "insufficient_quota"}}).encode(), fault
        if fault == "filter":
            return 400, {}, json.dumps({"error": {"message": "not shown", "code": "content_filter"}}).encode(), fault
        if fault in ("garbage", "html"):
            return 200, {}, b"\x00\xff{" if fault == "garbage" else b"<html>Bad gateway</html>", fault
        message: dict[str, Any] = {"role": "assistant", "content": answer_to(body)}
        finish = "stop"
        if fault == "length":
            message["content"], finish = "The event hap", "length"
        elif fault == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        elif fault == "nothing":
            message["content"] = None
        choices: list[Any] = [{"index": 0, "message": message, "finish_reason": finish}] * body.get("n", 1)
        if fault == "empty":
            choices = []
        elif fault == "no message":
            choices = [{"index": 0}]
        usage = {"prompt_tokens": 100, "completion_tokens": 7 * len(choices)}
        whole = {"model": "tiny-2026", "choices": choices, "usage": usage}
        if fault not in RETRIED:
            with self._lock:
                self.answered[question_of(body)] += 1
                self.prompt_tokens += 100
                self.output_tokens += 7 * len(choices)
        return 200, {}, json.dumps(whole).encode(), fault

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; the address to which ``/chat/completions`` is added."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if endpoint.key is not None and self.headers.get("Authorization") != f"Bearer {endpoint.key}":
                    sent = self.headers.get("Authorization")
                    self.send(401, {}, json.dumps({"error": {"message": f"wrong key: {sent}"}}).encode())
                    return
                with endpoint._lock:
                    endpoint.busy += 1
                    endpoint.most_busy = max(endpoint.most_busy, endpoint.busy)
                try:
                    endpoint._wake.wait(endpoint.delay)
                    status, headers, content, fault = endpoint.reply(body)
                    if fault == "hang-up":
                        return
                    self.send(status, headers, content, cut=fault == "cut")
                finally:
                    with endpoint._lock:
                        endpoint.busy -= 1

            def send(self, status: int, headers: Mapping[str, str], content: bytes, cut: bool = False) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if cut else content)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            self._wake.set()
            server.shutdown()
            thread.join()
            server.server_close()
