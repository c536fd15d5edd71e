"""`kernel`'s arithmetic in the memory of MLX's arrays, on the GPU: 7N bytes of traffic, and a peak of 4N.

MLX allocates a custom kernel's outputs anew and has no way to give them its inputs' memory. This kernel writes into
its inputs instead, behind MLX's back: MLX takes them for read, so it neither orders what else uses them after this
kernel, nor waits for it. Therefore what reads them is to be done before it is launched, and it is to be done before the
step returns, as the contract of `InPlaceAdamW` asks, which also says whose arrays may be written.

What makes the writing sound: an input's pointer is to constant elements, but the memory is not constant (Metal's device
and CUDA's global memory), so taking the `const` away is defined; every element is read and written by one thread only,
read first; and MLX passes an array that lies in order by its own address, never by a copy.
"""

import weakref
from itertools import chain
from typing import Any, NamedTuple

import mlx.core as mx

from adamw import gpu
from adamw.gpu import GpuAdamW, Kind, Leaf, Scalars, Shapes
from adamw.ownership import InPlaceAdamW, New, Own
from adamw.walk import Place


class Batch(NamedTuple):
    """Leaves that share a launch: their numbers among the leaves that are updated in place."""

    numbers: tuple[int, ...]
    kind: Kind
    shapes: Shapes


class Plan(NamedTuple):
    """The launches for certain arrays of the optimizer's own and gradients of certain dtypes.

    The arrays are told by their first moments, which are not kept alive for it.
    """

    moments: list[weakref.ref]
    dtypes: list[mx.Dtype]
    batches: list[Batch]

    def is_for(self, owned: list[Own], dtypes: list[mx.Dtype]) -> bool:
        if len(owned) != len(self.moments) or dtypes != self.dtypes:
            return False
        return all(moment() is own.m for moment, own in zip(self.moments, owned, strict=True))


NO_PLAN = Plan([], [], [])


class AdamW(GpuAdamW, InPlaceAdamW):
    """`mlx.optimizers.AdamW` that updates parameters and state where they lie, on the GPU. It mutates arrays.

    What that asks of whoever holds them is told in `InPlaceAdamW`. The arithmetic is float32, whatever the dtypes are.
    A leaf of fewer than 8 elements is given new arrays in every step: Metal passes those in memory that is constant.
    """

    def __init__(self, *args: Any, **hyper_parameters: Any) -> None:
        super().__init__(*args, **hyper_parameters)
        self._plan = NO_PLAN

    def _finish_readers(self, gradients: Any) -> None:
        """On CUDA what is under way need not be waited for: a stream does what it was given in order."""
        if self.backend == "cuda":
            mx.async_eval(gradients, self.learning_rate)
        else:
            super()._finish_readers(gradients)

    def _update(self, places: list[Place], new: New) -> None:
        scalars = self.scalars()
        large = [number for number, place in enumerate(places) if place[0].size >= gpu.CONSTANT_SIZE]
        there = places if len(large) == len(places) else [places[number] for number in large]
        small = {} if there is places else self._updated_small(places, scalars)
        copied: New = {}
        owned = self._owned(there, copied)
        mx.eval(self._write(there, copied, owned, scalars))
        new |= small | {large[number]: arrays for number, arrays in copied.items()}

    def _updated_small(self, places: list[Place], scalars: Scalars) -> New:
        """The new arrays of the leaves that no kernel can write over."""
        leaves = {
            number: Leaf(gradient, parameter, {**state})
            for number, (gradient, parameter, state) in enumerate(places)
            if 0 < gradient.size < gpu.CONSTANT_SIZE
        }
        self.launch(gpu.by_kind(leaves.values())[0], scalars)
        mx.eval([leaf.arrays for leaf in leaves.values()])
        return {number: (leaf.parameter, leaf.state["m"], leaf.state["v"]) for number, leaf in leaves.items()}

    def _write(self, places: list[Place], copied: New, owned: list[Own], scalars: Scalars) -> list[mx.array]:
        """Launch the update of every leaf in the arrays `owned`; what is evaluated when that is done.

        The device begins with the first launch while the next one is made.
        """
        done: list[mx.array] = []
        batches = self._planned(places, owned).batches
        launchers = [self.launcher(batch.kind, batch.shapes, scalars[1].size > 1, in_place=True) for batch in batches]
        for batch, launch in zip(batches, launchers, strict=True):
            arrays = (
                (
                    copied[number][0] if number in copied else places[number][1],
                    places[number][0],
                    owned[number].m,
                    owned[number].v,
                )
                for number in batch.numbers
            )
            done += launch(scalars, chain.from_iterable(arrays))
            mx.async_eval(done[-1])
        return done

    def _planned(self, places: list[Place], owned: list[Own]) -> Plan:
        """The launches for these arrays: the last step's, or new ones."""
        dtypes = [gradient.dtype for gradient, _, _ in places]
        if not self._plan.is_for(owned, dtypes):
            alike: dict[Kind, list[int]] = {}
            for number, (one, dtype) in enumerate(zip(owned, dtypes, strict=True)):
                parameter, moment = one.dtypes
                alike.setdefault(Kind(parameter, dtype, moment, moment, is_small=False), []).append(number)
            most = gpu.leaves_a_launch(self.backend, in_place=True)
            together = [(kind, tuple(part)) for kind, every in alike.items() for part in gpu.batches(every, most)]
            batches = [Batch(part, kind, tuple(owned[number].shape for number in part)) for kind, part in together]
            self._plan = Plan([weakref.ref(one.m) for one in owned], dtypes, batches)
        return self._plan

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_plan": NO_PLAN}
