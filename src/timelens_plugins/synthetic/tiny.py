"""The former place of :mod:`timelens_plugins.families.tiny`, kept for scripts that import from here."""

from timelens_plugins.families.tiny import build_model, build_processor, build_tokenizer, save_checkpoint

__all__ = ["build_model", "build_processor", "build_tokenizer", "save_checkpoint"]
