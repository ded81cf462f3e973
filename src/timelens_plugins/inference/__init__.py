"""Questions about videos in, answers out: each video decoded and prefilled once, answers kept across a kill.

Used by evaluation and by difficulty estimation.
"""

from timelens_plugins.inference.journal import Journal, JournalError

__all__ = ["Journal", "JournalError"]
