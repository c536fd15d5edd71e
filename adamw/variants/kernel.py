"""A GPU kernel of our own (Metal or CUDA), launched over many leaves at once, in float32 whatever the storage type.

`mx.compile` makes one kernel a leaf and rounds every intermediate result to the leaf's dtype. Here several leaves share
a launch, and a result is rounded once, when it is stored: 7N bytes of traffic. A custom kernel's outputs are always new
arrays (mlx/backend/metal/custom_kernel.cpp), so the step's peak is up to 7N, as `compiled`'s.
"""

from typing import Any

from adamw.gpu import GpuAdamW, Leaf, by_kind
from adamw.walk import Place, filled, gather


class AdamW(GpuAdamW):
    """`mlx.optimizers.AdamW` by a GPU kernel of our own, in float32 arithmetic. Nothing is evaluated.

    Where upstream rounds the learning rate and every intermediate result of a half-precision leaf to its dtype, here
    only the stored w, m and v are rounded. A leaf of any other dtype than float32, float16 and bfloat16, and one whose
    gradient or state has another shape, is updated by upstream's own code.
    """

    def take_step(self, gradients: Any, parameters: Any) -> Any:
        if not self.updates_leaves_itself:
            return super().take_step(gradients, parameters)
        self.prepare()
        self.count_step()
        places: list[Place] = []
        gather(gradients, parameters, self.state, places)
        leaves = [Leaf(*place) for place in places]
        kinds, others = by_kind(leaves)
        for leaf in others:
            leaf.parameter = self.apply_single(leaf.gradient, leaf.parameter, leaf.state)
        self.launch(kinds, self.scalars())
        return filled(gradients, (leaf.parameter for leaf in leaves))
