"""Model families: what differs between them, one record each, and (in ``load``) the loading of a checkpoint.

``timelens_plugins.families.load.load_model`` gives a model with its processor; the records here need no torch.
"""

from timelens_plugins.families.family import (
    FAMILIES,
    Family,
    family_of,
    find_family,
    model_types,
    register_family,
    shares_prefix,
)

__all__ = ["FAMILIES", "Family", "family_of", "find_family", "model_types", "register_family", "shares_prefix"]
