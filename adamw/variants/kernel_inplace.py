"""`kernel`'s arithmetic in the memory of MLX's arrays, on the GPU: 7N bytes of traffic, and a peak of 4N.

MLX allocates a custom kernel's outputs anew and has no way to give them its inputs' memory. This kernel writes into
its inputs instead, behind MLX's back: MLX takes them for read, so it neither orders what else uses them after this
kernel, nor waits for it. Therefore the step waits for the device before it launches, and for its launches before it
returns, as the contract of `InPlaceAdamW` asks, which also says whose arrays may be written.

What makes the writing sound: an input's pointer is to constant elements, but the memory is not constant (Metal's device
and CUDA's global memory), so taking the `const` away is defined; every element is read and written by one thread only,
read first; and MLX passes an array that lies in order by its own address, never by a copy.
"""

import mlx.core as mx

from adamw import gpu
from adamw.gpu import GpuAdamW, Leaf
from adamw.ownership import InPlaceAdamW, Place, evaluated


class AdamW(GpuAdamW, InPlaceAdamW):
    """`mlx.optimizers.AdamW` that updates parameters and state where they lie, on the GPU. It mutates arrays.

    What that asks of whoever holds them is told in `InPlaceAdamW`. The arithmetic is float32, whatever the dtypes are.
    A leaf of fewer than 8 elements is given new arrays in every step: Metal passes those in memory that is constant.
    """

    name = "kernel_inplace"

    def _update(self, places: list[Place], copies: dict[int, mx.array]) -> None:
        scalars = evaluated(self.scalars())
        numbers = [number for number, (gradient, _, _) in enumerate(places) if gradient.size >= gpu.CONSTANT_SIZE]
        copied: dict[int, mx.array] = {}
        owned = self._owned([places[number] for number in numbers], copied)
        copies |= {numbers[number]: parameter for number, parameter in copied.items()}
        leaves = [
            Leaf(places[number][0], copies.get(number, places[number][1]), {"m": own.m, "v": own.v})
            for number, own in zip(numbers, owned, strict=True)
        ]
        self._write(leaves, scalars)
        for number, (gradient, parameter, state) in enumerate(places):
            if 0 < gradient.size < gpu.CONSTANT_SIZE:
                leaf = Leaf(gradient, parameter, state)
                self.launch(gpu.by_kind([leaf])[0], scalars)
                mx.eval(leaf.arrays)
                copies[number] = leaf.parameter

    def _write(self, leaves: list[Leaf], scalars: mx.array) -> None:
        """Update evaluated `leaves` where their arrays lie; it is done when this returns."""
        done: list[mx.array] = []
        for kind, alike in gpu.by_kind(leaves)[0].items():
            for batch in gpu.batches(alike, gpu.leaves_a_launch(self.backend, in_place=True)):
                done += self.call(kind, [array for leaf in batch for array in leaf.arrays], scalars, in_place=True)
        mx.eval(done)
