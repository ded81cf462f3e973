"""What supervised fine-tuning and GRPO share: rows of moments, trained parts and their rates, clips made ready ahead.

No trainer lives here. Light to import: torch, transformers and datasets are imported by the module that needs them.
"""
