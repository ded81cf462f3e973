"""Tiny models in double precision, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from delta_rule import keep_double
from plain_batch import double
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from timelens_plugins.families.tiny import build_model, build_processor, build_tokenizer


@pytest.fixture(scope="session", params=["qwen3_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"])
def family(request: pytest.FixtureRequest) -> str:
    """Attention alone, attention beside linear attention, and experts."""
    return str(request.param)


@pytest.fixture(scope="session")
def double_precision(family: str) -> Iterator[None]:
    """What :func:`keep_double` does, for families that need it."""
    with pytest.MonkeyPatch.context() as patch:
        if family in ("qwen3_5", "qwen3_5_moe"):
            keep_double(patch)
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(["the event happens in 0123456789 seconds"] * 20)


@pytest.fixture(scope="session")
def processor(family: str, tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    return build_processor(family, tokenizer)


@pytest.fixture
def build(family: str, tokenizer: PreTrainedTokenizerFast, double_precision: None) -> Callable[..., Any]:
    """A fresh model of the family, double precision and training mode; options as ``build_model``."""
    return lambda **options: double(build_model(family, tokenizer, **{"logit_scale": 1.0} | options)).train()


@pytest.fixture(scope="session")
def frozen_model(family: str, tokenizer: PreTrainedTokenizerFast, double_precision: None) -> Any:
    """One model for tests that leave it as it is."""
    return double(build_model(family, tokenizer, logit_scale=1.0)).train()
