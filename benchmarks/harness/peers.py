"""AdamW as other frameworks have it: the peers that the variants are put beside.

A peer is one class here and its line in PEERS. Its framework is imported when the class is instantiated, so that the
names can be listed without any. Every peer updates in the buffers it has, and its bias correction is always on.
"""

import itertools
import os
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.harness import trees
from benchmarks.harness.cases import LEARNING_RATE, Precision

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.01

TORCH_DEVICES = {"CPU": "cpu", "Metal": "mps", "CUDA": "cuda"}
"""PyTorch's device beside MLX's backend."""


class Peer:
    """One framework's AdamW on one tree. Nothing of the tree's size is in memory before `fill`.

    Class attributes:
        packages    that must be installed; the first one is the framework
        precisions  it can do, by their names in `cases.PRECISIONS`
        limit       why it cannot do the others
        tolerance   of m and v, if it is not the precision's
    """

    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32", "float16", "bfloat16")
    limit = ""
    tolerance: float | None = None
    device = "cpu"

    def __init__(self, tree: Any, precision: Precision, backend: str, threads: int) -> None:
        """`tree` has a `trees.Shape` in every leaf's place. `backend` is what MLX runs on: see `machine.backend`."""
        raise NotImplementedError

    def fill(self, parameters: Any, gradients: Any) -> None:
        """Copy the values of every leaf: iterables of flat NumPy arrays, in the order of `trees.leaves`."""
        raise NotImplementedError

    def __call__(self) -> None:
        """One step, at whose end nothing is left to be computed."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait for the device."""

    def leaf(self, number: int) -> dict[str, Any]:
        """The arrays w, m and v of a leaf, m and v dequantised."""
        raise NotImplementedError

    def array(self, values: np.ndarray, shape: trees.Shape) -> Any:
        """A copy of `values` as an array of `shape` in the parameters' dtype."""
        raise NotImplementedError

    def part(self, array: Any, block: slice) -> np.ndarray:
        """Those elements of an array, seen flat, in float32."""
        raise NotImplementedError

    @classmethod
    def versions(cls) -> str:
        return ", ".join(f"{package} {version(package)}" for package in cls.packages)


class Torch(Peer):
    """`torch.optim.AdamW` in the implementation that `options` choose."""

    packages: tuple[str, ...] = ("torch",)
    limit = "its state has the dtype of its parameters"
    options: dict[str, bool] = {}

    def __init__(self, tree: Any, precision: Precision, backend: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.device = torch, TORCH_DEVICES[backend]
        self.shapes = list(trees.leaves(tree))
        self.dtype = getattr(torch, precision.parameter)

    def fill(self, parameters: Any, gradients: Any) -> None:
        self.parameters = list(map(self.array, parameters, self.shapes))
        for parameter, gradient in zip(self.parameters, map(self.array, gradients, self.shapes), strict=True):
            parameter.grad = gradient
        self.optimizer = self.make()

    def make(self) -> Any:
        return self.torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, **self.options
        )

    def __call__(self) -> None:
        self.optimizer.step()
        self.synchronize()

    def synchronize(self) -> None:
        if self.device != "cpu":
            getattr(self.torch, self.device).synchronize()

    def leaf(self, number: int) -> dict[str, Any]:
        parameter = self.parameters[number]
        state = self.optimizer.state[parameter]
        return {"w": parameter, "m": state["exp_avg"], "v": state["exp_avg_sq"]}

    def part(self, array: Any, block: slice) -> np.ndarray:
        return array.reshape(-1)[block].to("cpu", self.torch.float32).numpy()

    def array(self, values: np.ndarray, shape: trees.Shape) -> Any:
        return self.torch.from_numpy(values.reshape(shape)).to(self.device, self.dtype, copy=True)


class TorchFused(Torch):
    options = {"fused": True}


class TorchForeach(Torch):
    options = {"foreach": True}


class TorchForLoop(Torch):
    options = {"fused": False, "foreach": False}


class BitsAndBytes(Torch):
    """`bitsandbytes.optim.AdamW8bit`, with 8-bit state also for leaves below its default of 4096 elements."""

    packages = ("bitsandbytes", "torch")
    precisions: tuple[str, ...] = ("float32_8bit", "bfloat16_8bit")
    limit = "its state is 8-bit"
    tolerance = 2**-3  # v's codes are 2^-7 of a block's largest v apart, the inputs' v 1 to 9: three roundings are 6 %

    def make(self) -> Any:
        import bitsandbytes

        self.dequantized = bitsandbytes.functional.dequantize_blockwise
        return bitsandbytes.optim.AdamW8bit(
            self.parameters, lr=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, min_8bit_size=0
        )

    def leaf(self, number: int) -> dict[str, Any]:
        parameter = self.parameters[number]
        state = self.optimizer.state[parameter]
        m, v = (
            self.dequantized(state[f"state{moment}"], absmax=state[f"absmax{moment}"], code=state[f"qmap{moment}"])
            for moment in (1, 2)
        )
        return {"w": parameter, "m": m, "v": v}


class Optax(Peer):
    """`optax.adamw` under `jax.jit`, parameters and state donated; on MLX's CUDA backend on JAX's own device."""

    packages = ("optax", "jax", "jaxlib")
    limit = "its second moment has the dtype of its parameters"

    def __init__(self, tree: Any, precision: Precision, backend: str, threads: int) -> None:
        os.environ |= {"PJRT_NPROC": str(threads), "NPROC": str(threads)}  # xla/pjrt/utils.cc, DefaultThreadPoolSize
        if backend != "CUDA":
            os.environ["JAX_PLATFORMS"] = "cpu"
        import jax
        import optax

        self.jax, self.tree, self.dtype = jax, tree, getattr(jax.numpy, precision.parameter)
        self.device = jax.default_backend()
        adamw = optax.adamw(LEARNING_RATE, *BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)

        def step(parameters: Any, state: Any, gradients: Any) -> Any:
            updates, state = adamw.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state

        abstract = trees.mapped(lambda shape: jax.ShapeDtypeStruct(tuple(shape), self.dtype), tree)
        state = jax.eval_shape(adamw.init, abstract)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a buffer that cannot be donated is only warned of
            self.step = jax.jit(step, donate_argnums=(0, 1)).lower(abstract, state, abstract).compile()
        self.start = jax.jit(adamw.init).lower(abstract).compile()
        number = itertools.count()
        self.order = jax.tree.leaves(trees.mapped(lambda _: next(number), tree))  # JAX sorts the keys of a dict

    def fill(self, parameters: Any, gradients: Any) -> None:
        self.parameters, self.gradients = self._arrays(parameters), self._arrays(gradients)
        self.state = self.start(self.parameters)

    def __call__(self) -> None:
        self.parameters, self.state = self.step(self.parameters, self.state, self.gradients)
        self.synchronize()

    def synchronize(self) -> None:
        self.jax.block_until_ready((self.parameters, self.state))

    def leaf(self, number: int) -> dict[str, Any]:
        adam, place = self.state[0], self.order.index(number)
        held = {"w": self.parameters, "m": adam.mu, "v": adam.nu}
        return {name: self.jax.tree.leaves(tree)[place] for name, tree in held.items()}

    def part(self, array: Any, block: slice) -> np.ndarray:
        return np.asarray(array).reshape(-1)[block].astype(np.float32)

    def array(self, values: np.ndarray, shape: trees.Shape) -> Any:
        return self.jax.numpy.array(values.reshape(shape), self.dtype)

    def _arrays(self, values: Any) -> Any:
        values = iter(values)
        return trees.mapped(lambda shape: self.array(next(values), shape), self.tree)


PEERS: dict[str, type[Peer]] = {
    "torch_fused": TorchFused,
    "torch_foreach": TorchForeach,
    "torch_for_loop": TorchForLoop,
    "optax": Optax,
    "bitsandbytes": BitsAndBytes,
}
