"""What is relied on is there in the installed releases, and a changed one is named with the remedy.

``make test-newest`` and ``make test-oldest`` run this on both ends of the supported releases.
"""

from __future__ import annotations

import functools
import importlib
import inspect

import pytest
from trl.trainer import grpo_trainer

from timelens_plugins.grpo import upstream as trl
from timelens_plugins.inspection.relied_on import check_relied_on
from timelens_plugins.upstream import (
    Name,
    UpstreamChangedError,
    check,
    deepspeed,
    differences,
    lmms_eval,
    transformers,
    vllm,
)

LISTS = {
    f"{package.__name__}.{name}": names
    for package in (transformers, lmms_eval, deepspeed, vllm, trl)
    for name, names in vars(package).items()
    if isinstance(names, tuple) and names and all(isinstance(one, Name) for one in names)
}


@pytest.fixture(params=LISTS)
def names(request: pytest.FixtureRequest) -> tuple[Name, ...]:
    package = LISTS[request.param][0].path.partition(":")[0].partition(".")[0]
    pytest.importorskip(package, reason=f"{package} is not installed")
    return LISTS[request.param]


def test_the_installed_releases(names: tuple[Name, ...]) -> None:
    assert differences(names) == []


def without(patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Take a name away, from a class's parents as well."""
    for place in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        if name in vars(place) and place is not object:
            patch.delattr(place, name)


def test_every_name_that_vanishes_is_missed(names: tuple[Name, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names:
        module, _, attributes = name.path.partition(":")
        *owners, last = attributes.split(".")
        with monkeypatch.context() as patch:
            without(patch, functools.reduce(getattr, owners, importlib.import_module(module)), last)
            assert differences([name]), name.path
        assert not differences([name]), name.path


def test_every_method_of_trl_that_vanishes_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in trl.METHODS:
        with monkeypatch.context() as patch:
            without(patch, grpo_trainer.GRPOTrainer, method)
            assert f"GRPOTrainer.{method} is gone" in trl.differences(grpo_trainer)
    assert trl.differences(grpo_trainer) == []


def test_the_doctor_says_which_names_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {finding.text.split()[0]: finding for finding in check_relied_on()}
    assert {"transformers", "lmms-eval", "trl"} <= found.keys()
    assert {finding.status for finding in found.values()} == {"ok"}
    monkeypatch.delattr("transformers.models.qwen3_5.modeling_qwen3_5.causal_conv1d_fn")
    monkeypatch.delattr("trl.models.utils.add_hooks")
    broken = {finding.text.split()[0]: finding for finding in check_relied_on() if finding.status == "broken"}
    assert broken.keys() == {"transformers", "trl"}
    assert "modeling_qwen3_5:causal_conv1d_fn is gone" in broken["transformers"].text
    assert "add_hooks is gone" in broken["trl"].text
    assert broken["transformers"].remedy == "install a release from 5.16 to 5.24"


def test_a_changed_release_is_named() -> None:
    changed = (
        Name("transformers.processing_utils:ProcessorMixin.no_such_method"),
        Name("transformers.processing_utils:ProcessorMixin.apply_chat_template", ("self", "messages")),
        Name("transformers.cache_utils:DynamicLayer.update", line="no such line"),
        Name("transformers.no_such_module:name"),
    )
    with pytest.raises(UpstreamChangedError) as raised:
        check("transformers", "5.16 to 5.24", changed)
    told = str(raised.value)
    assert "ProcessorMixin.no_such_method is gone" in told
    assert "takes ('self', 'conversation'" in told
    assert "no longer has 'no such line'" in told
    assert "no_such_module:name is gone" in told
    assert told.endswith("Install a release from 5.16 to 5.24")


def test_sharing_asks_before_it_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    from timelens_plugins.families import tiny
    from timelens_plugins.shared_prefix import install

    model = tiny.build_model("qwen3_vl")
    install(model)
    monkeypatch.setattr(transformers, "GENERATION", (Name("transformers.cache_utils:NoSuchCache"),))
    transformers.check_generation.cache_clear()
    with pytest.raises(UpstreamChangedError, match="NoSuchCache is gone"):
        install(model)
    transformers.check_generation.cache_clear()
