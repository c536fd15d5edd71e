"""The layouts that an optimizer's state is saved in, and upstream's instead: {"m", "v"} in every leaf's place.

Three variants lay their state out otherwise: `flat` packs the moments of many leaves into a few buffers, `eight_bit`
has codes and scales, `master` a float32 master besides. Each can be told by its names, so that any optimizer here goes
on from what any other saved. A state of something else is refused by the name of the leaf.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from operator import index
from typing import Any, NamedTuple

import mlx.core as mx

PACKED = "packed-moments"
"""Where `flat`'s state has the moments of every buffer, in place of upstream's of every leaf."""

UNREADABLE = (
    f"AdamW state has {PACKED} that do not say which leaf lies where; "
    "with the version that saved them take upstream_state(), and save that"
)

LONGEST = 2**26
"""Characters of what a file is believed to say."""

Path = tuple[str | int, ...]
Leaf = dict[str, mx.array]


class Spot(NamedTuple):
    """One leaf in a buffer: its place in the tree, as the keys of dicts and the numbers of lists, and its shape."""

    path: Path
    shape: tuple[int, ...]


Spots = list[list[Spot]]
"""Of every buffer the leaves that lie in it, in their order."""


def described(spots: Spots, dtype: mx.Dtype) -> mx.array:
    """`spots` as an array for a file of arrays: compressed JSON, a byte an element.

    It has the moments' dtype, so that the state has one; every floating dtype holds the numbers up to 255.
    """
    text = zlib.compress(json.dumps(spots, separators=(",", ":")).encode())
    return mx.array(list(text)).astype(dtype if mx.issubdtype(dtype, mx.floating) else mx.float32)


class NotNow(ValueError):
    """Packed moments that are set inside a function while it is traced: no array can be read there."""


def read(packed: Any) -> Spots:
    """What lies where in `flat`'s packed moments. Their description is evaluated. Raises ValueError, NotNow."""
    try:
        numbers = packed["layout"].astype(mx.float32).tolist()
    except (ValueError, RuntimeError) as error:
        raise NotNow(
            f"AdamW state has {PACKED}, which cannot be read while a function is traced; set the state outside of it"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(UNREADABLE) from error
    try:
        rows = json.loads(zlib.decompressobj().decompress(bytes(map(int, numbers)), LONGEST))
        spots = [[Spot(tuple(path), tuple(map(index, shape))) for path, shape in row] for row in rows]
        if not agree(spots, packed):
            raise ValueError("sizes")
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        raise ValueError(UNREADABLE) from error
    return spots


def agree(spots: Spots, packed: Any) -> bool:
    """Whether the buffers have as many elements as is said."""
    sizes = [sum(math.prod(spot.shape) for spot in row) for row in spots]
    return [(buffer["m"].size, buffer["v"].size) for buffer in packed.get("buffers", [])] == list(
        zip(sizes, sizes, strict=True)
    )


def unpacked(state: dict, spots: Spots) -> dict:
    """`flat`'s packed `state` with m and v in every leaf's place. Nothing is evaluated."""
    tree: Any = {name: value for name, value in state.items() if name != PACKED}
    for row, buffer in zip(spots, state[PACKED].get("buffers", []), strict=True):
        shapes = [spot.shape for spot in row]
        for spot, m, v in zip(row, *(views(buffer[name], shapes) for name in ("m", "v")), strict=True):
            put(tree, spot.path, {"m": m, "v": v})
    return tree


def put(tree: Any, path: Path, leaf: Leaf) -> None:
    """Place `leaf` in nested dicts and lists, which grow as needed."""
    for key, following in zip(path, [*path[1:], None], strict=True):
        below: Any = leaf if following is None else [] if isinstance(following, int) else {}
        if isinstance(tree, list):
            key = int(key)
            tree.extend({} for _ in range(len(tree), key + 1))
            if following is None or not tree[key]:
                tree[key] = below
            tree = tree[key]
        else:
            tree = tree.setdefault(key, below)


def at(tree: Any, path: Path) -> Any:
    """What lies there. Raises KeyError."""
    for key in path:
        tree = tree[key]
    return tree


def complete(tree: Any, like: Any) -> None:
    """Have the containers without leaves of `like` in `tree`, which neither a file nor a packed state keeps."""
    for key, child in like.items() if isinstance(like, dict) else enumerate(like):
        if isinstance(child, (dict, list, tuple)):
            if isinstance(tree, list):
                tree.extend({} for _ in range(len(tree), key + 1))
            elif isinstance(tree, dict):
                tree.setdefault(key, {})
            complete(tree[key], child)


def paths(tree: Any, path: Path = ()) -> Iterator[Path | None]:
    """The place of every leaf of `tree`, in its order; None for one that no description can have."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            inside = paths(child, (*path, key))
            yield from inside if isinstance(key, str) else (None for _ in inside)
    elif isinstance(tree, (list, tuple)):
        for number, child in enumerate(tree):
            yield from paths(child, (*path, number))
    else:
        yield path


def views(buffer: mx.array, shapes: list[tuple[int, ...]]) -> list[mx.array]:
    """The elements of `buffer` in these shapes, one after the other."""
    if len(shapes) == 1:
        return [buffer.reshape(shapes[0])]
    ends = list(accumulate(math.prod(shape) for shape in shapes))
    return [part.reshape(shape) for part, shape in zip(mx.split(buffer, ends[:-1]), shapes, strict=True)]


def upstream_leaf(leaf: dict, name: str) -> dict:
    """The state of one leaf as upstream has it; what a subclass keeps there besides stays. Raises ValueError."""
    arrays = {key: value if isinstance(value, mx.array) else as_array(value) for key, value in leaf.items()}
    if missing := [key for key in ("m", "v") if not isinstance(arrays.get(key), mx.array)]:
        raise ValueError(
            f"AdamW state of {name[:99]!r} has {', '.join(sorted(leaf))[:99]!r} and not {' and '.join(missing)}: it is "
            "another optimizer's; set one that AdamW saved, or begin anew with init(parameters)"
        )
    if "m_scale" in arrays and "v_scale" in arrays:
        from adamw.variants.eight_bit import unpacked  # which needs this module

        arrays |= unpacked(arrays)
    if {arrays["m"].dtype, arrays["v"].dtype} & {mx.uint8, mx.bool_}:
        raise ValueError(
            f"AdamW state of {name[:99]!r} has m of {arrays['m'].dtype} and v of {arrays['v'].dtype}, codes without "
            "their scales m_scale and v_scale; load the whole file, or begin anew with init(parameters)"
        )
    kept = {key: value for key, value in arrays.items() if key not in ("master", "m_scale", "v_scale")}
    return leaf if kept.keys() == leaf.keys() and all(kept[key] is leaf[key] for key in kept) else kept


def as_array(value: Any) -> Any:
    """An array that NumPy has loaded as one of MLX; anything else as it is."""
    return mx.array(value) if hasattr(value, "__array__") else value


def with_leaves(state: Any, function: Callable[[dict, str], dict], name: str = "") -> Any:
    """`state` with `function(leaf state, name)` in every leaf's place: itself where that changes nothing."""
    if isinstance(state, dict):
        if name and any(not isinstance(value, (dict, list, tuple)) for value in state.values()):
            return function(state, name.removeprefix("."))
        found = {key: with_leaves(child, function, f"{name}.{key}") for key, child in state.items()}
        return state if all(found[key] is state[key] for key in found) else found
    if isinstance(state, (list, tuple)):
        children = [with_leaves(child, function, f"{name}.{number}") for number, child in enumerate(state)]
        if all(one is other for one, other in zip(children, state, strict=True)):
            return state
        return type(state)(*children) if hasattr(state, "_fields") else type(state)(children)
    return state


def counted(step: Any) -> mx.array:
    """The number of steps as an array: a Python or NumPy number becomes one. Raises TypeError for anything else."""
    if isinstance(step, mx.array) and step.size == 1:
        return step.reshape(()) if step.ndim else step
    number = step.item() if getattr(step, "size", 0) == 1 else step
    if not isinstance(number, (int, float)) or not 0 <= number == number // 1:
        raise TypeError(
            f"AdamW step should be a whole number, or an array of one, {str(step)[:40]!r} of {type(step).__name__} was "
            "provided instead; set optimizer.state['step'] = mx.array(10, mx.uint64), for instance"
        )
    return mx.array(int(number), mx.uint64)
