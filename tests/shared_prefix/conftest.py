"""Tiny models in double precision, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from timelens_plugins.synthetic.tiny import build_model, build_processor, build_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(["the event happens in 0123456789 seconds"] * 20)


@pytest.fixture(scope="session")
def processor(family: str, tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    return build_processor(family, tokenizer)


@pytest.fixture
def build(family: str, tokenizer: PreTrainedTokenizerFast) -> Callable[..., Any]:
    """A fresh model of the family, double precision and training mode; options as ``build_model``."""
    return lambda **options: build_model(family, tokenizer, **{"logit_scale": 1.0} | options).double().train()


@pytest.fixture(scope="session")
def frozen_model(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """One model for tests that leave it as it is."""
    return build_model(family, tokenizer, logit_scale=1.0).double().train()
