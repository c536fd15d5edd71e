"""The cases: which variant runs on which tree in which precision, curated by hand, and what each must at least move.

A **workload** is precision / tree (/ option), written `float32/gpt2` or `float32/one_leaf/bias_correction`; a **case**
is a variant on a workload. The lists never depend on the machine or the environment: what does not fit is skipped when
it is about to run. Nothing here needs MLX.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import trees

LEARNING_RATE = 1e-2
"""Large enough that every step moves a parameter near 1 by more than bfloat16's rounding: a missing update shows."""


class Precision(NamedTuple):
    """The dtypes of a case's arrays, by MLX's names, and the error that is still correct in them.

    `tolerance` is the largest accepted error relative to the float64 reference after `measure.CHECKED_STEPS` steps,
    element by element: a small multiple of the coarsest dtype's rounding unit (2^-24, 2^-11, 2^-8).
    """

    parameter: str
    gradient: str
    state: str
    tolerance: float

    @property
    def ideal_bytes(self) -> int:
        """Bytes a parameter that a step must move: read w, g, m, v and write w, m, v."""
        return 2 * ITEMSIZE[self.parameter] + ITEMSIZE[self.gradient] + 4 * ITEMSIZE[self.state]

    @property
    def resident_bytes(self) -> int:
        """Bytes a parameter that must be resident: w, g, m, v."""
        return ITEMSIZE[self.parameter] + ITEMSIZE[self.gradient] + 2 * ITEMSIZE[self.state]

    @property
    def output_bytes(self) -> int:
        """Bytes a parameter of a step's results: w, m, v."""
        return ITEMSIZE[self.parameter] + 2 * ITEMSIZE[self.state]


ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}

PRECISIONS = {
    "float32": Precision("float32", "float32", "float32", tolerance=2**-18),
    "float16": Precision("float16", "float16", "float16", tolerance=2**-8),
    "bfloat16": Precision("bfloat16", "bfloat16", "bfloat16", tolerance=2**-6),
    "mixed": Precision("bfloat16", "bfloat16", "float32", tolerance=2**-6),
}

OPTIONS = ("bias_correction",)

PROFILES = ("quick", "default", "full")

WORKLOADS = {
    # name: the smallest profile that contains it
    "float32/one_leaf": "default",
    "float32/two_leaves": "quick",
    "float32/thousand_leaves": "quick",
    "float32/nested": "default",
    "float32/llama_1b_lora": "quick",
    "float32/resnet50": "quick",
    "float32/vit_b16": "default",
    "float32/gpt2": "quick",
    "float32/llama_1b": "full",  # 34 GB at its peak
    # Bias correction on both sides of a trap: with one leaf MLX computes the powers of the betas for every element.
    "float32/one_leaf/bias_correction": "default",
    "float32/two_leaves/bias_correction": "default",
    "bfloat16/two_leaves": "quick",
    "bfloat16/thousand_leaves": "default",
    "bfloat16/llama_1b_lora": "default",
    "bfloat16/resnet50": "default",
    "bfloat16/gpt2": "full",  # emulated half precision: seconds a step on a CPU
    "bfloat16/llama_1b": "full",  # 17 GB at its peak, half a minute a step on a CPU
    "float16/two_leaves": "default",
    "float16/resnet50": "full",  # as bfloat16/gpt2
    "mixed/two_leaves": "default",
    "mixed/llama_1b_lora": "default",
    "mixed/resnet50": "default",
    "mixed/gpt2": "full",  # as bfloat16/gpt2
    "mixed/llama_1b": "full",  # 27 GB at its peak
}

OMITTED = {
    ("eager", "mixed"): "upstream's parameters silently become float32 when the state is float32: it would measure "
    "another precision than its name says",
}
"""(variant, precision) left out of every workload, and why."""


class UnknownCase(ValueError):
    """A case, workload, precision, option or profile that does not exist; the message lists what does."""


class Case(NamedTuple):
    """A variant on a precision and a tree."""

    variant: str
    precision_name: str
    tree_name: str
    bias_correction: bool = False

    def __str__(self) -> str:
        return f"{self.variant}/{self.workload}"

    @property
    def workload(self) -> str:
        options = ["bias_correction"] if self.bias_correction else []
        return "/".join([self.precision_name, self.tree_name, *options])

    @property
    def precision(self) -> Precision:
        return PRECISIONS[self.precision_name]

    @property
    def parameter_count(self) -> int:
        return trees.parameter_count(trees.build(self.tree_name))

    @property
    def leaf_count(self) -> int:
        return sum(1 for _ in trees.leaves(trees.build(self.tree_name)))

    @property
    def parameter_bytes(self) -> int:
        """N, the bytes of the parameters."""
        return self.parameter_count * ITEMSIZE[self.precision.parameter]

    @property
    def ideal_bytes(self) -> int:
        """The least a step of this case can move."""
        return self.parameter_count * self.precision.ideal_bytes

    @property
    def resident_bytes(self) -> int:
        """The least memory this case can occupy: parameters, gradients and state."""
        return self.parameter_count * self.precision.resident_bytes

    @property
    def needed_bytes(self) -> int:
        """Memory to have free before this case starts: everything resident, all results anew, and one temporary."""
        precision = self.precision
        temporary = max(ITEMSIZE[precision.parameter], ITEMSIZE[precision.state])
        return self.parameter_count * (precision.resident_bytes + precision.output_bytes + temporary)


def variant_names() -> list[str]:
    """The variants in the working tree, by file name, whatever commit of `adamw` is installed."""
    folder = Path(__file__).parents[2] / "adamw" / "variants"
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


def choose(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise UnknownCase unless `name` is one of the `known` names."""
    if name not in known:
        raise UnknownCase(f"unknown {kind} {name!r}; choose one of: {', '.join(known)}")


def case(variant: str, workload: str, variants: Iterable[str] | None = None) -> Case:
    """The case of `variant`, one of `variants` (default: the working tree's), on `workload`.

    Raises UnknownCase, and ValueError for an unknown tree.
    """
    choose("variant", variant, variant_names() if variants is None else variants)
    precision, _, rest = workload.partition("/")
    choose("precision", precision, PRECISIONS)
    tree, _, option = rest.partition("/")
    trees.build(tree)
    if option:
        choose("option", option, OPTIONS)
    return Case(variant, precision, tree, bias_correction=bool(option))


def profile() -> str:
    """The profile chosen by ADAMW_PROFILE, `default` if it is not set. Raises UnknownCase."""
    name = os.environ.get("ADAMW_PROFILE", "default")
    choose("profile", name, PROFILES)
    return name


def sweep() -> list[str]:
    """The workloads of the size sweep."""
    return [f"float32/leaf_{size}" for size in trees.SWEEP]


def chosen(variants: Iterable[str], name: str) -> list[Case]:
    """Every case of `variants` that the profile `name` contains, what is left out on purpose left out."""
    workloads = [workload for workload in [*WORKLOADS, *sweep()] if in_profile(workload, name)]
    found = [case(variant, workload, variants) for variant in variants for workload in workloads]
    return [case for case in found if (case.variant, case.precision_name) not in OMITTED]


def in_profile(workload: str, name: str) -> bool:
    """Whether the profile `name` contains `workload`; a size of the sweep belongs to default and full."""
    return PROFILES.index(WORKLOADS.get(workload, "default")) <= PROFILES.index(name)
