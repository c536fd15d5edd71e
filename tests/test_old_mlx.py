"""The oldest MLX that is promised and one in between: every variant is a drop-in there, or says in one line why not.

The last test runs the others, and those of `test_variants.py`, with these releases.
"""

import os
import subprocess
import sys
from typing import Any

import here
import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
from mlx.utils import tree_map

import adamw
from benchmarks.harness import cases
from scripts import command, sides, upstream

BETWEEN = "0.31.1"
"""The last that does not tell the kernels of two dtypes apart (MLX's pull request 3427)."""

PRECISIONS = [(name, precision) for name in here.VARIANTS for precision in cases.precisions(name)]

RUN = (
    "import os, sys; sys.path += sys.argv.pop(1).split(os.pathsep); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
)
"""Runs pytest in an interpreter that lacks it: what it does not have itself comes from these folders."""

LEFT_OUT = ("kernel", "bad_values", "older_release", "changed_hyper", "windows", "copied")
"""The GPU's stand-in, which asks MLX for a text that old releases do not tell; what upstream accepts there; this file's
last test; and what is long and does not depend on MLX's release."""


def tree_of(dtype: mx.Dtype, value: float = 1.0) -> Any:
    return {"x": mx.full((300,), value, dtype), "y": [mx.full((3, 5), 2 * value, dtype)], "z": mx.zeros((0,), dtype)}


def steps(optimizer: Any, parameters: Any, gradients: Any) -> Any:
    for _ in range(3):
        parameters = optimizer.apply_gradients(gradients, parameters)
        mx.eval(parameters, optimizer.state)
    return parameters


def expected() -> Any:
    """What upstream makes of it in float32."""
    return steps(mlx.optimizers.AdamW(2**-4), tree_of(mx.float32), tree_of(mx.float32, 0.25))


def assert_close(actual: Any, expected: Any) -> None:
    tree_map(lambda a, b: np.testing.assert_allclose(np.array(a.astype(mx.float32)), np.array(b), atol=0.05), actual,
             expected)  # fmt: skip


@pytest.mark.parametrize(("name", "precision"), PRECISIONS)
def test_every_precision_is_upstreams_to_its_rounding_and_the_callers_arrays_stay(name, precision):
    about = cases.PRECISIONS[precision]
    dtype = getattr(mx, about.parameter)
    tree, optimizer = tree_of(dtype), adamw.create(name, learning_rate=2**-4)
    made_like = dtype if about.state_is_the_variants else getattr(mx, about.state)
    optimizer.init(tree_map(lambda array: array.astype(made_like), tree))
    assert_close(steps(optimizer, tree, tree_of(dtype, 0.25)), expected())
    assert tree["x"].tolist() == [1.0] * 300
    assert tree["y"][0].tolist() == [[2.0] * 5] * 3


@pytest.mark.parametrize("name", [name for name in here.VARIANTS if name != "eager"])
def test_what_is_compiled_for_one_dtype_is_not_taken_for_another(name):
    """With float32 state the kernels of the two differ in what they read alone."""
    for dtype in (mx.float16, mx.bfloat16):
        tree, optimizer = tree_of(dtype), adamw.create(name, learning_rate=2**-4)
        optimizer.init(tree_of(mx.float32))
        assert_close(steps(optimizer, tree, tree_of(dtype, 0.25)), expected())


@pytest.mark.parametrize("name", adamw.names())
def test_what_cannot_run_here_is_one_line(name):
    reason = adamw.unavailable(name)
    assert reason is None or (reason.startswith(name) and reason.isprintable())


def oldest() -> str:
    """The release that the project promises to run on."""
    (specifier,) = upstream.supported()
    assert specifier.operator == ">="
    return specifier.version


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the oldest", "one in between"])
def test_every_variant_is_a_drop_in_on_an_older_release(which, at_root, tmp_path):
    release = oldest() if which == "the oldest" else BETWEEN
    try:
        python = sides.resolve(f"mlx=={release}").python
    except command.UserError as error:
        if "no such release for this machine" not in str(error):
            raise
        pytest.skip(str(error))
    folders = os.pathsep.join(path for path in sys.path if path)
    chosen = ["tests/test_old_mlx.py", "tests/test_variants.py", "-k", f"not ({' or '.join(LEFT_OUT)})"]
    done = subprocess.run(
        [python, "-c", RUN, folders, "-q", "--tb=short", "-p", "no:cacheprovider", *chosen],
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
