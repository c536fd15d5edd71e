"""AdamW in float32 on any storage type, as the text of a GPU kernel: one text for Metal and for CUDA.

MLX writes the function's head before it (mlx/backend/common/metal_kernel.cpp, mlx/backend/cuda/custom_kernel.cpp). Only
`PLACE`, where a thread learns its place, is spelt differently. The kernel's arguments are

    scalars      float32, in the order of `SCALARS`
    rates        float32, in the order of `RATES`; only the first where there is no bias correction
    table        int64: the chunk with which each leaf begins, the number of chunks, and each leaf's size
    w_k g_k m_k v_k, new_w_k new_m_k new_v_k   the arrays of leaf number k; in place the new ones are the old, and there
                 is one output besides, `done`, of one uint32 that becomes 1
    LEAVES, CHUNK, GROUP, CORRECTED, W, G, M, V   template arguments: the number of leaves, the elements of a chunk, the
                 threads of a group, whether the bias is corrected, the types of the parameters, gradients, m and v

A group of threads takes a chunk of one leaf at a time, GROUP elements after each other, so that the loads of all
CHUNK / GROUP elements of a thread are under way at once. Where there are more chunks than groups, a group goes on in
strides of all groups. A leaf's last chunk may be shorter.
"""

SCALARS = ("b1", "one_minus_b1", "b2", "one_minus_b2", "eps", "weight_decay")
"""The hyper-parameters that stay the same from step to step."""

RATES = ("learning_rate", "m_scale", "v_scale")
"""What a step has of its own: the learning rate, and for bias correction 1 / (1 - b1^t) and 1 / (1 - b2^t)."""

HEAD = """
const float learning_rate = rates[0];
const float m_scale = CORRECTED ? float(rates[1]) : 1.0f;
const float v_scale = CORRECTED ? float(rates[2]) : 1.0f;
"""

READ = {"w": "W", "g": "G", "m": "M", "v": "V"}
WRITTEN = {"w": "W", "m": "M", "v": "V"}
"""What is read and written of a leaf, and the names of its types."""

PLACE = {
    "metal": """
const int thread = int(thread_position_in_threadgroup.x);
const int64_t group = int64_t(threadgroup_position_in_grid.x);
const int64_t groups = int64_t(threadgroups_per_grid.x);
""",
    "cuda": """
const int thread = int(threadIdx.x);
const int64_t group = int64_t(blockIdx.x);
const int64_t groups = int64_t(gridDim.x);
""",
}

BODY = """
for (int64_t chunk = group; chunk < table[LEAVES]; chunk += groups) {
  int leaf = 0;
  for (int beyond = LEAVES; beyond - leaf > 1;) {
    const int middle = (leaf + beyond) / 2;
    if (chunk >= table[middle]) leaf = middle; else beyond = middle;
  }
  const int64_t start = (chunk - table[leaf]) * CHUNK;
  const int64_t left = table[LEAVES + 1 + leaf] - start;
POINTERS
  switch (leaf) {
CASES
  }
  float ws[CHUNK / GROUP], gs[CHUNK / GROUP], ms[CHUNK / GROUP], vs[CHUNK / GROUP];
  for (int k = 0; k < CHUNK / GROUP; ++k) {
    const int i = k * GROUP + thread;
    if (i < left) {
      ws[k] = float(w[start + i]);
      gs[k] = float(g[start + i]);
      ms[k] = float(m[start + i]);
      vs[k] = float(v[start + i]);
    }
  }
  for (int k = 0; k < CHUNK / GROUP; ++k) {
    const int i = k * GROUP + thread;
    if (i < left) {
      const float m_k = b1 * ms[k] + one_minus_b1 * gs[k];
      const float v_k = b2 * vs[k] + one_minus_b2 * (gs[k] * gs[k]);
      const float step = m_k * m_scale / (sqrt(v_k * v_scale) + eps) + weight_decay * ws[k];
      new_m[start + i] = M(m_k);
      new_v[start + i] = V(v_k);
      new_w[start + i] = W(ws[k] - learning_rate * step);
    }
  }
}
"""

SPACES = {("metal", False): "device ", ("metal", True): "constant ", ("cuda", False): "", ("cuda", True): ""}
"""Where a kernel's inputs lie, by backend and whether they have fewer than 8 elements."""


def source(backend: str, leaves: int, is_small: bool = False, in_place: bool = False) -> str:
    """The body of a kernel that updates `leaves` leaves; `backend` is "metal" or "cuda".

    On Metal arrays of fewer than 8 elements, for which `is_small` is to be true, lie in constant memory, which cannot
    be written: they are not updated in place.
    """
    read, written = SPACES[backend, is_small], SPACES[backend, False]
    pointers = [f"  const {read}{kind}* {name};" for name, kind in READ.items()]
    pointers += [f"  {written}{kind}* new_{name};" for name, kind in WRITTEN.items()]
    cases = []
    for leaf in range(leaves):
        chosen = [f"{name} = {name}_{leaf};" for name in READ]
        for name, kind in WRITTEN.items():
            new = f"const_cast<{written}{kind}*>({name}_{leaf})" if in_place else f"new_{name}_{leaf}"
            chosen.append(f"new_{name} = {new};")
        cases.append(f"    case {leaf}: {' '.join(chosen)} break;")
    scalars = "".join(f"const float {name} = scalars[{place}];\n" for place, name in enumerate(SCALARS)) + HEAD
    body = BODY.replace("POINTERS", "\n".join(pointers)).replace("CASES", "\n".join(cases))
    return PLACE[backend] + scalars + ("if (group + thread == 0) done[0] = 1;" if in_place else "") + body


def input_names(leaves: int) -> list[str]:
    """The kernel's inputs, in their order."""
    return ["scalars", "rates", "table", *(f"{name}_{leaf}" for leaf in range(leaves) for name in READ)]


def output_names(leaves: int, in_place: bool = False) -> list[str]:
    """The kernel's outputs, in their order."""
    return ["done"] if in_place else [f"new_{name}_{leaf}" for leaf in range(leaves) for name in WRITTEN]
