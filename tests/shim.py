"""Custom GPU kernels on a machine without a GPU: the text that MLX would compile is compiled as C++ and really run.

    with shim.gpu("metal") as launches:
        optimizer = adamw.create("kernel", learning_rate=1e-3)

Inside, the variant `kernel` takes this machine for one with Metal (or CUDA). For Metal the text is MLX's own, which it
writes without Metal too when it exports a function; for CUDA it is written here as MLX writes it. In the text only the
pointers are replaced, by `Pointer` of shim.hpp, which checks every access; the threads run one after another. A launch
runs when it is called, so it cannot be part of what `mx.compile` traces.
"""

import ctypes
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from adamw import gpu as launching

HERE = Path(__file__).parent
metal_kernel = mx.fast.metal_kernel
CUDA_TYPES = {
    mx.float32: "float",
    mx.float16: "__half",
    mx.bfloat16: "__nv_bfloat16",
    mx.int64: "int64_t",
    mx.uint32: "uint32_t",
}


CONTRACTED = ("-ffp-contract=fast", *(["-mfma"] if platform.machine() == "x86_64" else []))
"""Metal's "safe" math mode keeps infinities and NaN, but may fuse a multiplication and an addition."""


POINTER = re.compile(r"(const )?(?:device |constant )?(\w+)\* (\w+)")
"""A pointer's declaration: whether to a constant, its type, its name."""


class Array(ctypes.Structure):
    """`Array` of shim.hpp."""

    _fields_ = [("elements", ctypes.c_void_p), ("size", ctypes.c_int64), ("accesses", ctypes.c_int64)]


class Launch(NamedTuple):
    """One call of a custom kernel: its name, its text as MLX would compile it, and what it was called with."""

    name: str
    text: str
    inputs: list[mx.array]
    output_shapes: list[Sequence[int]]
    output_dtypes: list[mx.Dtype]
    threads: int
    group: int

    def outputs(self, contracted: bool = False) -> list[mx.array]:
        """Run every thread; `contracted` lets the compiler round a product and a sum once, as a GPU's may.

        Raises IndexError for an access outside an array, AssertionError for a wrong write."""
        assert all(array.size for array in self.inputs), "an empty array has no buffer to be passed"
        inputs = [memory(array) for array in self.inputs]
        counts = [int(np.prod(shape)) for shape in self.output_shapes]
        outputs = [
            np.full(count * dtype.size, 0xFF, np.uint8)  # a NaN in every type
            for count, dtype in zip(counts, self.output_dtypes, strict=True)
        ]
        sizes = [array.size for array in self.inputs] + counts
        accesses = self.run(inputs + outputs, sizes, self.threads, contracted)
        assert accesses[len(inputs) :] == counts, "every element of an output is to be written once"
        return [
            mx.array(output).view(dtype).reshape(shape)
            for output, shape, dtype in zip(outputs, self.output_shapes, self.output_dtypes, strict=True)
        ]

    def run(
        self, buffers: Sequence[np.ndarray], sizes: Sequence[int], threads: int, contracted: bool = False
    ) -> list[int]:
        """Run the first `threads` threads on `buffers` of so many elements; how often each buffer was accessed."""
        assert 0 < self.threads < 2**31
        arrays = (Array * len(buffers))(
            *(Array(buffer.ctypes.data, size, 0) for buffer, size in zip(buffers, sizes, strict=True))
        )
        if compiled(self.text, contracted)(arrays, threads, self.threads, self.group):
            raise IndexError("the kernel accessed an element that the array does not have")
        return [array.accesses for array in arrays]


def memory(array: mx.array) -> np.ndarray:
    """The bytes of an evaluated array where they lie, or of a copy in order, as MLX gives a kernel."""
    mx.eval(array)
    try:
        return np.frombuffer((ctypes.c_char * array.nbytes).from_buffer(array), np.uint8)  # type: ignore[arg-type]
    except TypeError:
        return np.array(mx.contiguous(array).reshape(-1).view(mx.uint8))


@contextmanager
def gpu(backend: str, run: Callable[[Launch], list[mx.array]] = Launch.outputs) -> Iterator[list[Launch]]:
    """Inside, custom kernels are those of `backend` ("metal" or "cuda"), and `run` runs them; the launches so far."""
    launches: list[Launch] = []

    def made(**kernel_arguments: Any) -> Callable[..., list[mx.array]]:
        def called(**arguments: Any) -> list[mx.array]:
            launches.append(launch(backend, kernel_arguments, arguments))
            return run(launches[-1])

        return called

    launching.made_kernel.cache_clear()
    try:
        with patch.object(launching, "backend", lambda: backend), patch.object(mx.fast, f"{backend}_kernel", made):
            yield launches
    finally:
        launching.made_kernel.cache_clear()


def launch(backend: str, kernel_arguments: dict[str, Any], arguments: dict[str, Any]) -> Launch:
    """The launch that `mx.fast.BACKEND_kernel(**kernel_arguments)(**arguments)` is."""
    text = (metal_text if backend == "metal" else cuda_text)(kernel_arguments, arguments)
    (threads, *ones), (group, *more_ones) = arguments["grid"], arguments["threadgroup"]
    assert ones == more_ones == [1, 1]
    shapes, dtypes = arguments["output_shapes"], arguments["output_dtypes"]
    return Launch(kernel_arguments["name"], text, arguments["inputs"], shapes, dtypes, threads, group)


def metal_text(kernel_arguments: dict[str, Any], arguments: dict[str, Any]) -> str:
    """What MLX would give to Metal's compiler, from MLX itself."""
    parts: list[dict[str, Any]] = []

    def call(*inputs: mx.array) -> list[mx.array]:
        return metal_kernel(**kernel_arguments)(**arguments | {"inputs": list(inputs)})

    mx.export_function(parts.append, call, *arguments["inputs"])
    (text,) = (part["arguments"][1] for part in parts if part.get("name") == "CustomKernel")
    return text


def cuda_text(kernel_arguments: dict[str, Any], arguments: dict[str, Any]) -> str:
    """What MLX would give to CUDA's compiler after its headers (mlx/backend/cuda/custom_kernel.cpp, `build_kernel`)."""
    inputs = zip(kernel_arguments["input_names"], arguments["inputs"], strict=True)
    outputs = zip(kernel_arguments["output_names"], arguments["output_dtypes"], strict=True)
    parameters = [f"    const {CUDA_TYPES[array.dtype]}* {name}" for name, array in inputs]
    parameters += [f"    {CUDA_TYPES[dtype]}* {name}" for name, dtype in outputs]
    template = "".join(
        f"  using {name} = {CUDA_TYPES[value]};\n"
        if isinstance(value, mx.Dtype)
        else f"  constexpr {type(value).__name__} {name} = {str(value).lower()};\n"
        for name, value in arguments["template"]
    )
    head = f"namespace mlx::core::cu {{\n\n__global__ void custom_kernel_{kernel_arguments['name']}(\n"
    body = template + "\n" + kernel_arguments["source"]
    return head + ",\n".join(parameters) + ") {\n" + body + "\n}\n\n} // namespace mlx::core::cu\n"


def cpp_text(text: str) -> str:
    """`text` as C++: checked pointers, no attributes, and a function that runs a range of threads."""
    function, _, instance = text.partition("\ntemplate [[host_name")
    head, _, body = function.partition(") {\n")
    start, _, parameters = re.sub(r" ?\[\[.*?\]\] ?", "", head).partition("(\n")
    checked = re.sub(POINTER, r"Pointer<\1\2> \3", parameters)
    body = re.sub(rf"^( *){POINTER.pattern};$", r"\1Pointer<\2\3> \4;", body, flags=re.MULTILINE)
    body = re.sub(r"const_cast<(?:device )?\w+\*>\((\w+)\)", r"\1.writable()", body)
    arguments = [
        f"arrays[{number}]" if "*" in parameter else parameter.split()[-1]  # the thread's place
        for number, parameter in enumerate(parameters.split(",\n"))
    ]
    exact = re.search(r"decltype\((.*?)\)", instance)
    called = exact[1] if exact else "mlx::core::cu::" + start.split()[-1]
    return f"""#include "shim.hpp"
{start}(
{checked}) {{
{body}
extern "C" int run(Array* arrays, int64_t count, int64_t threads, int64_t group) {{
  try {{
    for (int64_t thread = 0; thread < count; ++thread) {{
      place(thread, threads, group);
      {called}({", ".join(arguments)});
    }}
  }} catch (const std::out_of_range&) {{
    return 1;
  }}
  return 0;
}}
"""


@cache
def compiled(text: str, contracted: bool = False) -> Callable[..., int]:
    """The function `run` of `text`, compiled without a warning. Nothing is left on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernel.so"
        command = [
            "g++",
            *(CONTRACTED if contracted else ("-ffp-contract=off",)),
            "-std=c++17",
            "-O2",
            "-Wall",
            "-Werror",
            "-shared",
            "-fPIC",
            f"-I{HERE}",
            "-x",
            "c++",
            "-",
        ]
        made = subprocess.run([*command, "-o", str(library)], input=cpp_text(text), text=True, capture_output=True)
        assert made.returncode == 0, made.stderr
        function = ctypes.CDLL(str(library)).run
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64]
    return function
