"""Two tokenizers are told apart by every word of their vocabularies."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from timelens_plugins.inference.fingerprint import _tokenizer


def words(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def test_words_that_look_like_settings_count() -> None:
    one, two = words({"?": 0, "_a": 1, "dtype": 2}), words({"?": 0, "_a": 2, "dtype": 1})
    assert one("_a dtype")["input_ids"] != two("_a dtype")["input_ids"]
    assert _tokenizer(one) != _tokenizer(two)
    before = _tokenizer(one)
    one(["_a", "_a dtype"], padding=False, truncation=True, max_length=1)
    assert _tokenizer(one) == before
