"""A chat template with Qwen3.5's thinking mode."""

from __future__ import annotations

_END = "{% endif -%}"
_THOUGHT = r"{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '<think>\n' }}"


def with_thinking(template: str) -> str:
    """A tiny checkpoint's template whose prompts open a thought, or close it where the model is not to think."""
    head, end, tail = template.rpartition(_END)
    assert end
    assert not tail.strip()
    return head + _THOUGHT + end + tail
