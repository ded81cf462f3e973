"""What a group of GRPO asks of a model: one video prompt, its queries, their completions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Work"]

_TEXT_TOKENS = 40  # of the question and the turns around it
_STAMP_TOKENS = 8  # of a frame pair: its time, and the markers around its vision tokens


@dataclass(frozen=True)
class Work:
    """One video of a training batch.

    Attributes:
        frames: sampled frames, two of which make a pair.
        vision_tokens: of all pairs together.
        generations: completions of each query (G).
        completion_tokens: mean length of a completion.
        queries: about the video in one step; each has ``generations`` completions.

    Raises:
        ValueError: a number below 1, or fewer vision tokens than frame pairs.
    """

    frames: int
    vision_tokens: int
    generations: int = 8
    completion_tokens: int = 24
    queries: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("frames", 2),
            ("vision_tokens", 1),
            ("generations", 1),
            ("completion_tokens", 1),
            ("queries", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.vision_tokens < self.pairs:
            raise ValueError(f"{self.vision_tokens} vision tokens are fewer than the {self.pairs} frame pairs")

    @property
    def pairs(self) -> int:
        """Frame pairs."""
        return -(-self.frames // 2)

    @property
    def video_tokens(self) -> int:
        """Tokens of the video in the prompt, times and markers included."""
        return self.vision_tokens + self.pairs * _STAMP_TOKENS

    @property
    def query_tokens(self) -> int:
        """Tokens of a prompt after the video."""
        return _TEXT_TOKENS

    @property
    def prompt_tokens(self) -> int:
        """P: tokens of a whole prompt."""
        return self.video_tokens + self.query_tokens

    @property
    def completions(self) -> int:
        """Of all queries."""
        return self.generations * self.queries

    @property
    def shared_tokens(self) -> int:
        """Tokens of the packed row: the video once, each query once, completions without their last tokens."""
        return self.video_tokens + self.queries * self.query_tokens + self.completions * (self.completion_tokens - 1)

    @property
    def plain_tokens(self) -> int:
        """Tokens of the repeated batch: each completion with a prompt of its own."""
        return self.completions * (self.prompt_tokens + self.completion_tokens)

    def tokens(self, shared: bool) -> int:
        """Of one training forward."""
        return self.shared_tokens if shared else self.plain_tokens

    def videos(self, shared: bool) -> int:
        """Copies of the video that are computed."""
        return 1 if shared else self.completions

    def pairs_attended(self, shared: bool) -> float:
        """Pairs of a query and a key in causal attention, all rows together."""
        c, n = self.completion_tokens, self.completions
        if not shared:
            row = self.prompt_tokens + c
            return n * row * (row + 1) / 2
        video, query = self.video_tokens, self.query_tokens
        branches = self.queries * query * (video + (query + 1) / 2)
        return video * (video + 1) / 2 + branches + n * (c - 1) * (video + query + c / 2)
