"""The cases: which variant runs on which tree in which precision, curated by hand, and what each must at least move.

A **workload** is precision / tree (/ option), written `float32/gpt2` or `float32/one_leaf/bias_correction`; a **case**
is a variant on a workload. The lists never depend on the machine or the environment: what does not fit is skipped when
it is about to run. Nothing here needs MLX.
"""

import ast
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import trees

VARIANTS = Path(__file__).parents[2] / "adamw" / "variants"

LEARNING_RATE = 1e-2
"""Large enough that every step moves a parameter near 1 by more than bfloat16's rounding: a missing update shows."""


class Precision(NamedTuple):
    """The dtypes of a case's arrays, by MLX's names, and the error that is still correct in them.

    `state` is the dtype of m and v; `master` that of the weights from which the parameters are rounded, if there are
    any. `tolerance` is the largest accepted error relative to the float64 reference after `agreement.STEPS` steps,
    element by element: a small multiple of the coarsest dtype's rounding unit (2^-24, 2^-11, 2^-8; 8-bit codes 2^-7).
    """

    parameter: str
    gradient: str
    state: str
    tolerance: float
    master: str = ""

    @property
    def ideal_bytes(self) -> float:
        """Bytes a parameter that a step must move: read w, g, m, v and write w, m, v; with masters w is not read."""
        return self._weights + self._parameter + ITEMSIZE[self.gradient] + 4 * ITEMSIZE[self.state]

    @property
    def resident_bytes(self) -> float:
        """Bytes a parameter that must be resident: w, g, m, v, master."""
        return self.output_bytes + ITEMSIZE[self.gradient]

    @property
    def output_bytes(self) -> float:
        """Bytes a parameter of a step's results: w, m, v, master."""
        return self._parameter + 2 * ITEMSIZE[self.state] + (ITEMSIZE[self.master] if self.master else 0)

    @property
    def state_dtypes(self) -> set[str]:
        """The dtypes of the arrays of a leaf's state."""
        return {"uint8", "float32"} if self.state == EIGHT_BIT else {self.state, self.master or self.state}

    @property
    def state_is_the_variants(self) -> bool:
        """Whether the variant makes its state from the parameters, because it is not an m and a v of one dtype."""
        return bool(self.master) or self.state == EIGHT_BIT

    @property
    def _parameter(self) -> int:
        return int(ITEMSIZE[self.parameter])

    @property
    def _weights(self) -> float:
        """Bytes that are read for the old weight, and written for the new one if it is no parameter."""
        return 2 * ITEMSIZE[self.master] if self.master else ITEMSIZE[self.parameter]


EIGHT_BIT = "8-bit codes"
BLOCK = 256
"""Elements that share a float32 scale in 8-bit state."""

ITEMSIZE: dict[str, float] = {"float32": 4, "float16": 2, "bfloat16": 2, EIGHT_BIT: 1 + 4 / BLOCK}

PRECISIONS = {
    "float32": Precision("float32", "float32", "float32", tolerance=2**-18),
    "float16": Precision("float16", "float16", "float16", tolerance=2**-8),
    "bfloat16": Precision("bfloat16", "bfloat16", "bfloat16", tolerance=2**-6),
    "mixed": Precision("bfloat16", "bfloat16", "float32", tolerance=2**-6),
    "master": Precision("bfloat16", "bfloat16", "float32", tolerance=2**-8, master="float32"),
    "float32_8bit": Precision("float32", "float32", EIGHT_BIT, tolerance=2**-4),
    "bfloat16_8bit": Precision("bfloat16", "bfloat16", EIGHT_BIT, tolerance=2**-4),
}

STANDARD = ("float32", "float16", "bfloat16", "mixed")
"""The precisions of a variant that does not name its own."""

UNREADABLE = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)
"""What reading and parsing a source file may raise: it may be unfinished, or nest too deeply."""

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
    "float32/gpt2": "default",
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
    "master/two_leaves": "quick",
    "master/llama_1b_lora": "default",
    "master/resnet50": "default",
    "master/gpt2": "full",  # as bfloat16/gpt2
    "float32_8bit/two_leaves": "quick",
    "float32_8bit/llama_1b_lora": "default",
    "float32_8bit/resnet50": "default",
    "float32_8bit/gpt2": "full",
    "bfloat16_8bit/two_leaves": "default",
    "bfloat16_8bit/gpt2": "full",
}


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
        return int(self.parameter_count * ITEMSIZE[self.precision.parameter])

    @property
    def ideal_bytes(self) -> int:
        """The least a step of this case can move."""
        return math.ceil(self.parameter_count * self.precision.ideal_bytes)

    @property
    def resident_bytes(self) -> int:
        """The least memory this case can occupy: parameters, gradients and state."""
        return math.ceil(self.parameter_count * self.precision.resident_bytes)

    @property
    def needed_bytes(self) -> int:
        """Memory to have free before this case starts: everything resident, all results anew, and one temporary."""
        precision = self.precision
        temporary = max(ITEMSIZE[precision.parameter], ITEMSIZE[precision.state])
        return math.ceil(self.parameter_count * (precision.resident_bytes + precision.output_bytes + temporary))


def variant_names() -> list[str]:
    """The variants in the working tree, by file name, whatever commit of `adamw` is installed."""
    return sorted(path.stem for path in VARIANTS.glob("[a-z]*.py"))


def precisions(variant: str) -> tuple[str, ...]:
    """The precisions on which `variant` is measured: PRECISIONS of its file, which is read and not imported.

    The first four of a file that cannot be read: another side of a comparison may have it, or its cases fail by name.
    """
    try:
        module = ast.parse((VARIANTS / f"{variant}.py").read_text())
        for node in module.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PRECISIONS":
                return tuple(ast.literal_eval(node.value))
    except UNREADABLE:
        pass
    return STANDARD


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
    """Every case of `variants` that the profile `name` contains, each variant on its own precisions."""
    workloads = [workload for workload in [*WORKLOADS, *sweep()] if in_profile(workload, name)]
    found = []
    for variant in variants:
        own = precisions(variant)  # once a variant: every process that asv starts enumerates the cases
        found += [case(variant, workload, variants) for workload in workloads if workload.partition("/")[0] in own]
    return found


def names() -> list[str]:
    """Every case there is, of the working tree's variants."""
    return [str(case) for case in chosen(variant_names(), "full")]


def in_profile(workload: str, name: str) -> bool:
    """Whether the profile `name` contains `workload`; a size of the sweep belongs to default and full."""
    return PROFILES.index(WORKLOADS.get(workload, "default")) <= PROFILES.index(name)
