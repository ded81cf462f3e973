"""The processes of an evaluation, which answer each other's questions.

lmms-eval deals rows out in turn: the questions about a video come to as many processes as there are, each of which
would decode and prefill it, and each must hand over the answers to its own. So the processes tell each other what they
are asked, share the clips by what they cost, take what slower ones have not begun, and hand the answers over.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from types import FrameType
from typing import TypeVar

import torch.distributed
from torch.distributed import TCPStore

__all__ = ["Processes"]

Value = TypeVar("Value")


class Processes:
    """Processes that all go through the same steps.

    Args:
        index: which this is.
        count: of how many; 1 for this one alone.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count
        self._store: TCPStore | None = None
        if count > 1:
            _leave_at_exit()
            address = os.environ["MASTER_ADDR"]  # of process 0, as torch.distributed has found it
            if index == 0:
                self._store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
            port = self.gather(None if self._store is None else self._store.port)[0]
            self._store = self._store or TCPStore(address, int(port or 0), wait_for_workers=False)

    @classmethod
    def of_run(cls, index: int, count: int) -> Processes:
        """Those of lmms-eval's run, where it calls the model on each of them; else this one alone.

        It does so from its evaluation itself, also where a process is asked nothing. Its cache of responses calls the
        model only on processes that miss something, and who calls it from elsewhere may do so on any.
        """
        return cls(index, count) if count > 1 and _called_on_all(sys._getframe(1)) else cls()

    def gather(self, value: Value) -> list[Value]:
        """What each process gives here, in their order; waits for all of them."""
        if self.count == 1:
            return [value]
        given: list[Value] = [value] * self.count
        torch.distributed.all_gather_object(given, value)
        return given

    def claim(self, work: str) -> bool:
        """Whether no process has asked for this work before."""
        return self._store is None or int(self._store.add(work, 1)) == 1


@functools.cache
def _leave_at_exit() -> None:
    """lmms-eval leaves its process group standing, and gloo's threads may then abort an interpreter that ends."""

    def leave() -> None:
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()

    atexit.register(leave)


def _called_on_all(frame: FrameType | None) -> bool:
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("lmms_eval.caching"):
            return False
        if module == "lmms_eval.evaluator" and frame.f_code.co_name == "evaluate":
            return True
        frame = frame.f_back
    return False
