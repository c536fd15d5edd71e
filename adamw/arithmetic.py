"""AdamW in float32 on any storage type, as the text of a GPU kernel: one text for Metal and for CUDA.

MLX writes the function's head before it (mlx/backend/common/metal_kernel.cpp, mlx/backend/cuda/custom_kernel.cpp). Only
`PROLOGUE`, where a thread learns its place, is spelt differently. The kernel's arguments are

    scalars      float32, in the order of `SCALARS`
    table        int64: where each leaf starts on a line of positions, where the line ends, and each leaf's size
    w_k g_k m_k v_k, new_w_k new_m_k new_v_k   the arrays of leaf number k
    LEAVES, W, M, V    template arguments: the number of leaves, the types of the parameters, of m and of v

A leaf starts at a multiple of the threadgroup's size, so that all threads of a group work on one leaf. The gap before
the next leaf is nobody's. Where the line is longer than the grid every thread goes on in strides of the whole grid.
"""

SCALARS = ("b1", "one_minus_b1", "b2", "one_minus_b2", "eps", "weight_decay", "m_scale", "v_scale", "learning_rate")
"""One step's hyper-parameters. m_scale is 1 / (1 - b1^t) and v_scale 1 / (1 - b2^t), or both 1: no bias correction."""

READ = ("w", "g", "m", "v")
WRITTEN = {"w": "W", "m": "M", "v": "V"}
"""What is written of a leaf, and the names of its types."""

PROLOGUE = {
    "metal": """
const int64_t first = int64_t(thread_position_in_grid.x);
const int64_t stride = int64_t(threads_per_grid.x);
""",
    "cuda": """
const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
const int64_t stride = int64_t(gridDim.x) * blockDim.x;
""",
}

BODY = """
int leaf = 0;
for (int64_t position = first; position < table[LEAVES]; position += stride) {
  while (position >= table[leaf + 1]) ++leaf;
  const int64_t i = position - table[leaf];
  if (i >= table[LEAVES + 1 + leaf]) continue;
  float w = 0, g = 0, m = 0, v = 0;
  switch (leaf) {
READS
  }
  m = b1 * m + one_minus_b1 * g;
  v = b2 * v + one_minus_b2 * (g * g);
  w = w - learning_rate * (m * m_scale / (sqrt(v * v_scale) + eps) + weight_decay * w);
  switch (leaf) {
WRITES
  }
}
"""


def source(backend: str, leaves: int) -> str:
    """The body of a kernel that updates `leaves` leaves; `backend` is "metal" or "cuda"."""
    scalars = "".join(f"const float {name} = scalars[{place}];\n" for place, name in enumerate(SCALARS))
    # Arrays of fewer than 8 elements lie in another address space on Metal: no pointer can be chosen, only a value.
    reads = [" ".join(f"{name} = float({name}_{leaf}[i]);" for name in READ) for leaf in range(leaves)]
    writes = [
        " ".join(f"new_{name}_{leaf}[i] = {kind}({name});" for name, kind in WRITTEN.items()) for leaf in range(leaves)
    ]
    return PROLOGUE[backend] + scalars + BODY.replace("READS", cases(reads)).replace("WRITES", cases(writes))


def cases(statements: list[str]) -> str:
    """The cases of a `switch` that does the statements number 0, 1, 2, ..."""
    return "\n".join(f"    case {number}: {statement} break;" for number, statement in enumerate(statements))


def input_names(leaves: int) -> list[str]:
    """The kernel's inputs, in their order."""
    return ["scalars", "table", *(f"{name}_{leaf}" for leaf in range(leaves) for name in READ)]


def output_names(leaves: int) -> list[str]:
    """The kernel's outputs, in their order."""
    return [f"new_{name}_{leaf}" for leaf in range(leaves) for name in WRITTEN]
