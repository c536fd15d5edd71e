"""How often compiled functions are traced, and variants that nobody has traced yet."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


class TraceCounter:
    """Counts how often functions given to `mx.compile` are traced. Install it before any variant is imported.

    A traced function runs in Python only while it is traced, so the counting costs nothing in a timed step. Where
    compilation is off (MLX_DISABLE_COMPILE, no C++ compiler on the CPU) every call counts.
    """

    def __init__(self) -> None:
        self.traces = 0
        self._compile = mx.compile

    def install(self) -> None:
        mx.compile = self._counting_compile

    def _counting_compile(self, fun: Callable, *args: Any, **kwargs: Any) -> Callable:
        def traced(*inputs: Any, **named: Any) -> Any:
            self.traces += 1
            return fun(*inputs, **named)

        return self._compile(traced, *args, **kwargs)


@contextmanager
def untraced_variants() -> Iterator[None]:
    """Inside, variants are imported anew: what a module compiled before does not spare it a trace here."""
    before = forget_variants()
    try:
        yield
    finally:
        forget_variants()
        sys.modules.update(before)


def forget_variants() -> dict[str, Any]:
    """Take the modules of `adamw` that use MLX out of Python's cache; the modules taken, by name.

    What does not import MLX has compiled nothing with it.
    """
    ours = [name for name, module in sys.modules.items() if name.startswith("adamw.") and hasattr(module, "mx")]
    return {name: sys.modules.pop(name) for name in ours}
