"""PITFALLS.md is true of the pinned MLX: each of its blocks is run as a reader would run it, in a Python of its own."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from asv import util
from markdown_it import MarkdownIt
from mlx import nn

from adamw import reference

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "PITFALLS.md").read_text()
MARK = "  # -> "


class Section(NamedTuple):
    """A heading and the code blocks below it."""

    heading: str
    blocks: list[str]

    @property
    def code(self) -> str:
        return "".join(self.blocks)


class Claim(NamedTuple):
    """A block's lines before its last, the expression there, and what stands behind the mark: what it should print."""

    before: str
    expression: str
    expected: str


def sections(page: str) -> list[Section]:
    found: list[Section] = []
    tokens = MarkdownIt().parse(page)
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            found.append(Section(tokens[number + 1].content, []))
        elif token.type == "fence":
            found[-1].blocks.append(token.content)
    return found


def claim(block: str) -> Claim:
    """The block's claim. Raises an error unless its last line, and no other, has a mark and something to evaluate."""
    before, _, last = f"\n{block.rstrip()}".rpartition("\n")
    expression, mark, expected = last.partition(MARK)
    if not (mark and expression and expression == expression.lstrip()):
        raise ValueError(f"no claim in the last line: {last!r}")
    if MARK.strip() in before:
        raise ValueError(f"a claim that nothing checks: {block}")
    if not any(isinstance(node, ast.Name) for node in ast.walk(ast.parse(expression, mode="eval"))):
        raise ValueError(f"a claim that cannot fail: {last!r}")
    return Claim(before, expression, expected)


def printed(block: str, otherwise: str = "") -> str:
    """What a new Python prints of the block's last line, or the error with which the block ends.

    The page's first block runs before it, and between the two `otherwise`, which may change MLX.
    """
    before, expression, _ = claim(block)
    program = "\n".join((FIRST, otherwise, before, f"print(({expression}))"))
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return (process.stdout or process.stderr).strip().rpartition("\n")[-1]


SECTIONS = sections(PAGE)
FIRST = SECTIONS[0].code
NUMBERED = {int(number): section.code for section in SECTIONS for number in re.findall(r"^\d+(?=\. )", section.heading)}
LOOP = SECTIONS[-1]

EVALUATES = """
apply = optim.AdamW.apply_gradients
optim.AdamW.apply_gradients = lambda self, *trees: (new := apply(self, *trees), mx.eval(new, self.state))[0]
"""
KEEPS_DTYPE = """
apply = optim.AdamW.apply_single
optim.AdamW.apply_single = lambda self, g, w, state: apply(self, g, w, state).astype(w.dtype)
"""
CLIPS_IN_PLACE = """
clip = optim.clip_grad_norm
optim.clip_grad_norm = lambda trees, max_norm: (clip(trees, max_norm), trees.update(tree(1.0)))[0]
"""
SETS_THE_RATE = """
def set_rate(self, rate):
    self._schedulers.clear()
    self.state["learning_rate"] = mx.array(rate)

optim.AdamW.learning_rate = optim.AdamW.learning_rate.setter(set_rate)
"""
INITIALISES_ALWAYS = """
apply = optim.AdamW.apply_gradients
optim.AdamW.apply_gradients = lambda self, gradients, parameters: (
    self.init(gradients), apply(self, gradients, parameters))[1]
"""
FLOAT32_STATE = "optim.AdamW.init_single = lambda self, w, s: s.update(m=mx.zeros(w.shape), v=mx.zeros(w.shape))"
REUSES_BUFFERS = "load = adamw.load; adamw.load = lambda name: load('split')"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.heading)
def test_what_the_page_claims_is_printed(section):
    assert printed(section.code) == claim(section.code).expected


OTHERWISE = [
    (1, "optim.AdamW.__init__.__defaults__ = ([0.9, 0.999], 1e-8, 0.01, True)", "[1.0, 1.0]"),
    (2, "mx.bfloat16 = mx.float32", "0.5"),
    (3, "mx.bfloat16 = mx.float32", "[0.368, nan]"),
    (3, "mx.float16 = mx.float32", "[1.0, 1.0]"),
    (4, FLOAT32_STATE, "[mlx.core.float32, mlx.core.float32]"),
    (5, KEEPS_DTYPE, "[mlx.core.bfloat16, mlx.core.bfloat16, mlx.core.bfloat16]"),
    (6, "mx.disable_compile()", "2.344"),
    (7, "mx.disable_compile()", "0.92"),
    (8, CLIPS_IN_PLACE, "[1.0, 1.0, 10.0]"),
    (9, SETS_THE_RATE, "0.5"),
    (10, "optim.AdamW.__init__.__defaults__ = ([0.9, 0.999], 1e-8, 0, False)", "(1.0, -0.0969)"),
    (10, "root = mx.sqrt; mx.sqrt = lambda v: root(v + 1) - 1  # with an eps of 1: inside", "(0.999, -0.1)"),
    (11, INITIALISES_ALWAYS, "None"),
    (12, EVALUATES, "0"),
    (13, f"mx.zeros = lambda shape: mx.ones(1)  # 4 TiB cannot be evaluated\n{EVALUATES}", "(0, False)"),
    (14, REUSES_BUFFERS, "(4, 4, 5)"),
    (15, REUSES_BUFFERS, "[False, False, False]"),
    (16, REUSES_BUFFERS, "[0.5, 0.5, 0.5, 0.5]"),
]
"""Section, an MLX that does what its reader expected, and what the section's block prints then."""


@pytest.mark.parametrize(("number", "otherwise", "prints"), OTHERWISE)
def test_a_section_goes_red_when_mlx_does_otherwise(number, otherwise, prints):
    assert printed(NUMBERED[number], otherwise) == prints != claim(NUMBERED[number]).expected


def test_every_section_has_been_seen_red():
    assert {number for number, *_ in OTHERWISE} == set(NUMBERED) == set(range(1, len(SECTIONS) - 1))


def test_every_heading_has_exactly_one_block():
    assert [section.heading for section in SECTIONS if len(section.blocks) != 1] == []
    assert {token.info for token in MarkdownIt().parse(PAGE) if token.type == "fence"} == {"python"}


@pytest.mark.parametrize(
    "block",
    ["1 + 1", "w = 1  # -> 1", "for w in range(3):\n    w  # -> 2", "w = 1  # -> 2\nw  # -> 1", "1 + 1  # -> 2"],
    ids=["no mark", "a statement", "inside a loop", "two marks", "a constant"],
)
def test_a_block_without_a_claim_that_can_fail_is_refused(block):
    with pytest.raises((ValueError, SyntaxError)):
        claim(block)


def test_a_false_claim_is_seen():
    assert printed("w = 1\nw + 1  # -> 3") == "2"
    assert printed("w.lost  # -> 3").startswith("NameError: name 'w'")


def test_the_table_names_every_section_and_its_link_leads_somewhere():
    rows = re.findall(r"^\| .* \(([\d, ]+)\) \|$", PAGE, re.MULTILINE)
    assert sorted(int(number) for row in rows for number in row.split(",")) == sorted(NUMBERED)
    anchor = re.sub(r"[^\w -]", "", LOOP.heading.lower()).replace(" ", "-")
    assert re.findall(r"\]\(#(.*?)\)", PAGE) == [anchor]


def test_the_page_says_on_which_mlx_it_was_proven_and_the_readme_leads_to_it():
    required = util.load_json(str(ROOT / "asv.conf.json"), js_comments=True)["matrix"]["req"]
    stated = re.search(r"Proven on MLX ([\d.]+), (\w+) backend", PAGE)
    assert stated
    version, backend = stated.groups()
    assert [version] == required["mlx"] == required[f"mlx-{backend.lower()}"][1:]
    assert "[PITFALLS.md](PITFALLS.md)" in (ROOT / "README.md").read_text().partition("\n## ")[0]


def test_the_translated_loop_does_what_pytorchs_does():
    """Against PyTorch's documented algorithm in float64: the clipped gradient, bias-corrected, no decay of the bias."""
    mx.random.seed(0)
    start = nn.Linear(2, 1)
    mx.random.seed(0)
    names: dict = {}
    exec(f"{FIRST}\n{LOOP.code}", names)
    weight, bias = (reference.start(np.array(array)) for array in (start.weight, start.bias))
    for t, (x, y) in enumerate(names["batches"], 1):
        inputs = np.array(x, np.float64)
        slope = 2 * (inputs @ weight.w.T + bias.w - np.array(y))  # of the mean of one squared error
        scale = min(1.0, 1.0 / (np.sqrt(np.sum((slope.T @ inputs) ** 2) + np.sum(slope**2)) + 1e-6))
        pytorchs = {"learning_rate": 0.1, "bias_correction": True}
        weight = reference.step(weight, scale * slope.T @ inputs, t, weight_decay=0.01, **pytorchs)
        bias = reference.step(bias, scale * slope[0], t, weight_decay=0.0, **pytorchs)
    np.testing.assert_allclose(np.array(names["model"].weight), weight.w, rtol=1e-3)
    np.testing.assert_allclose(np.array(names["model"].bias), bias.w, rtol=1e-3)
