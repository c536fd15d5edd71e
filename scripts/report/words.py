"""What the names mean, read from where each is defined."""

import ast

from benchmarks.harness import cases, trees


def variants() -> dict[str, str]:
    """The first sentence of each variant's file, which is read and not imported."""
    return {name: first(documented(name)) for name in cases.variant_names()}


def documented(variant: str) -> str:
    try:
        return ast.get_docstring(ast.parse((cases.VARIANTS / f"{variant}.py").read_text())) or ""
    except cases.UNREADABLE:
        return ""


def tree_names() -> dict[str, str]:
    sizes = {"leaf_N": "One leaf of N parameters: the sweep of sizes."}
    return {name: first(tree.__doc__ or "") for name, tree in trees.CATALOGUE.items()} | sizes


def precisions() -> dict[str, str]:
    return {
        name: f"parameters {one.parameter}, gradients {one.gradient}, moments {one.state}"
        + (f", master weights {one.master}" if one.master else "")
        for name, one in cases.PRECISIONS.items()
    }


def first(text: str) -> str:
    """The first line, which in this project is a sentence."""
    return text.strip().partition("\n")[0]
