"""AdamW variants for MLX, each a drop-in for `mlx.optimizers.AdamW`.

A variant is one module in `adamw.variants`; its file name is the variant's name and its class is called `AdamW`:

    import adamw
    optimizer = adamw.create("windowed", learning_rate=1e-3, bias_correction=True)

Listing the names reads the folder and imports nothing, so a benchmark suite can be enumerated without MLX.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

__all__ = ["UnknownVariant", "create", "load", "names", "unavailable"]

VARIANTS = Path(__file__).parent / "variants"


class UnknownVariant(ValueError):
    """No variant of that name; the message lists the names there are."""


def names() -> list[str]:
    """The variants' names, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules([str(VARIANTS)]))


def load(name: str) -> Any:
    """The optimizer class of the variant `name`. Raises UnknownVariant."""
    if name not in names():
        raise UnknownVariant(f"unknown variant {name!r}; choose one of: {', '.join(names())}")
    return importlib.import_module(f"adamw.variants.{name}").AdamW


def unavailable(name: str) -> str | None:
    """Why the variant `name` cannot run on this machine, in one line; None if it can. Raises UnknownVariant."""
    reason = getattr(load(name), "unavailable", None)
    return reason() if reason else None


def create(name: str, **hyper_parameters: Any) -> Any:
    """An optimizer of the variant `name`, constructed with `mlx.optimizers.AdamW`'s own arguments.

    Raises UnknownVariant, `adamw.base.Unavailable` where the variant cannot run, and ValueError where upstream does
    (betas outside [0, 1), a negative eps).
    """
    return load(name)(**hyper_parameters)
