"""What the tensors of a model are for, by their names and dtypes: which are trained, and which only lie beside them.

A packed integer is a weight that no optimizer trains. Statistics, masks, positions, frequencies and an optimizer's
state are no weights. What only may not be trained is counted, and said.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.harness.header import Tensor, printable

INTEGERS = frozenset({"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"})

LISTED = 2
"""Names of a kind that are said; of the others the number is."""

LONGEST_SAID = 60
"""Characters of a name."""


def at_end(*words: str) -> Callable[[str], object]:
    """Whether a name ends in one of `words`, after a dot, an underscore or nothing."""
    return re.compile(rf"(?:^|[._/])(?:{'|'.join(words)})$").search


PACKED = at_end(
    r"weight", r"kernel", r"q_?weight", r"qzeros", r"packed", r"blocks", r"W_q", r"codes", r"_data", r"qdata"
)
"""Of integers: the names of weights in fewer bits than a byte or two."""

QUANTIZATIONS: dict[str, Callable[[str], object]] = {
    "bitsandbytes": re.compile(r"\.(absmax|quant_map|SCB)$|\.quant_state\.").search,
    "GPTQ or AWQ": at_end("qweight", "qzeros"),
    "MXFP4": at_end("blocks"),
    "compressed-tensors": at_end("weight_packed"),
    "MLX": at_end("scales"),
    "8-bit integers": at_end("weight_scale"),
}

SCALES = at_end(
    *(
        r"weight_scale(_inv|_2)?",
        r"(input|output|activation|k|v|q|prob)_scale",
        r"scale_(weight|input)",
        r"scales?",
        r"scaled_fp8",
    )
)

ADAPTER = re.compile(
    r"(^|[._])(lora_(embedding_)?[abAB]|lora_(up|down|mid|magnitude_vector)|lokr_w\w{1,9}|hada_\w{1,9}|ia3_l|oft_\w{1,9}|vera_lambda_\w{1,9})"
    r"([._]|$)"
)

LAYER = re.compile(r"(?:^|[._])(?:layers?|blocks?|h)\.(\d{1,6})\.", re.ASCII)

SCALARS = ("step", "count", "learning_rate")

STATE = re.compile(
    r"(^|[._/])(exp_avg(_sq|_inf)?|max_exp_avg_sq|momentum_buffer|exp_inf|square_avg)([._/]|$)"
    r"|^(optim|optimizer|opt_state|optimizer_state(_dict)?|optimizer_states?)[._/]"
).search

NOT_TRAINED: dict[str, Callable[[str], object]] = {
    "running statistics": at_end(
        r"(running|moving)_(mean|var|variance|std)", r"num_batches_tracked", r"batch_stats[./].{0,200}(mean|var)"
    ),
    "rotary frequencies": at_end(
        *(r"inv_freqs?", r"(rope|rotary\w{0,20}|rot)[._]freqs(\.weight)?", r"freqs_(cis|cos|sin)", r"(cos|sin)_cached?")
    ),
    "masks": at_end(r"mask", r"masked_bias", r"tril", r"triu"),
    "positions": at_end(
        r"(position|token_type)_ids", r"relative_(position_index|coords_table)", r"anchors", r"anchor_grid"
    ),
    "noise schedules": at_end(r"\w{0,30}alphas_cumprod(_prev)?", r"betas", r"posterior_(log_)?(variance|mean)\w{0,20}"),
    "an input's normalization": at_end(r"(pixel|image)_(mean|std)"),
    "an optimizer's state": STATE,
}
"""What is in a file as floating-point numbers and is a weight in no framework."""

PERHAPS: dict[str, Callable[[str], object]] = {
    "averages of weights": re.compile(r"(^|[._])(model_)?ema(_model)?[._]|_ema$").search,
    "the balance of experts": at_end(r"e_score_correction_bias", r"expert_bias"),
    "fixed positions": re.compile(
        r"sinusoid|(^|[._])pe$|embed_positions\.weights$|encoder\.embed_positions\.weight$"
    ).search,
    "a codebook's averages": at_end(r"cluster_(size|usage)", r"embed(ding)?_(avg|sum)"),
    "a spectral norm's vector": at_end(r"weight_u"),
}
"""What is trained in some models and not in others."""


class Judged(NamedTuple):
    """The tensors that are trained, and by reason the names of those that are not, and of those that may not be."""

    trained: list[Tensor]
    left_out: dict[str, list[str]]
    doubtful: dict[str, list[str]]


def judge(tensors: list[Tensor], copies: Iterable[str] = ()) -> Judged:
    """What of `tensors` is trained; `copies` are names of those whose data is another's."""
    reasons = [*base_of_adapter(tensors), (named(set(copies)), "a tied weight, stored twice"), *reasons_of(tensors)]
    trained: list[Tensor] = []
    left_out: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    for tensor in tensors:
        reason = next((why for applies, why in reasons if applies(tensor)), None)
        if reason:
            left_out.setdefault(reason, []).append(tensor.name)
            continue
        trained.append(tensor)
        for why, applies_to in PERHAPS.items():
            if applies_to(tensor.name):
                doubtful.setdefault(why, []).append(tensor.name)
    return Judged(trained, left_out, doubtful)


Reason = tuple[Callable[[Tensor], object], str]


def reasons_of(tensors: list[Tensor]) -> list[Reason]:
    """Why a tensor is left out: what applies, in words."""
    moments = moments_of(tensors)
    is_scaled = any(is_small_float(tensor) for tensor in tensors)
    return [
        (lambda one: 0 in one.shape, "without elements"),
        (lambda one: one.name in moments, "an optimizer's state"),
        *(((lambda one, applies=applies: applies(one.name)), what) for what, applies in NOT_TRAINED.items()),
        (is_causal_mask, "masks"),
        (lambda one: one.dtype in INTEGERS, "integers or bools"),
        (lambda one: is_scaled and SCALES(one.name), "scales of quantized weights"),
        (lambda one: one.shape == () and one.name.endswith(".alpha"), "an adapter's scale"),
    ]


def named(names: set[str]) -> Callable[[Tensor], bool]:
    return lambda one: one.name in names


def is_small_float(tensor: Tensor) -> bool:
    """Whether `tensor` has floating-point numbers of at most a byte."""
    return re.match("F[468]_", tensor.dtype + "_") is not None


def is_causal_mask(tensor: Tensor) -> bool:
    """Whether `tensor` is a mask that is called bias, as GPT-2's: 1 x 1 x n x n."""
    shape = tensor.shape
    return at_end("bias")(tensor.name) is not None and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def moments_of(tensors: list[Tensor]) -> set[str]:
    """The names of an optimizer's state: two moments of one shape beside each other, the step and the learning rate."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    pairs = [(name, second) for name in shapes for second in seconds(name) if shapes.get(second) == shapes[name]]
    if not pairs and not any(map(STATE, shapes)):
        return set()
    plain = [name for name in shapes if re.split("[./]", name)[-1] in SCALARS and shapes[name] == ()]
    return {name for pair in pairs for name in pair} | set(plain)


def seconds(name: str) -> list[str]:
    """What the second moment is called if `name` is the first: MLX's layer.weight.v, or v.layer.weight, or nu."""
    return [
        re.sub(pattern, second, name)
        for first, second in (("m", "v"), ("mu", "nu"))
        for pattern in (rf"^{first}(?=[./])", rf"(?<=[./]){first}$")
        if re.search(pattern, name)
    ]


def base_of_adapter(tensors: list[Tensor]) -> list[Reason]:
    """The reason for which all but the adapter is left out, if the model that it is of is in the same file."""
    stems = {tensor.name[: match.start()] for tensor in tensors if (match := ADAPTER.search(tensor.name))}
    base = {
        f"{stem}{part}" for stem in stems for part in (".weight", ".linear.weight", ".base_layer.weight", ".qweight")
    }
    if base.isdisjoint(tensor.name for tensor in tensors):
        return []
    magnitudes = {f"{stem}.m" for stem in stems}  # DoRA's, as MLX calls them
    return [
        (lambda one: not ADAPTER.search(one.name) and one.name not in magnitudes, "the model that the adapter is of")
    ]


def quantized(tensors: list[Tensor]) -> str | None:
    """By what `tensors` are packed, and which; None if they are not, or an adapter of them is trained instead."""
    packed = [one for one in tensors if one.dtype in INTEGERS - {"BOOL"} and one.shape and PACKED(one.name)]
    if base_of_adapter(tensors) or not (packed or is_mostly_integers(tensors)):
        return None
    ways = (way for way, applies in QUANTIZATIONS.items() if any(applies(tensor.name) for tensor in tensors))
    way = next(ways, "of a kind that its names do not tell")
    return f"{way}; packed integers: {said([one.name for one in packed or matrices(tensors)])}"


def scaled(tensors: list[Tensor]) -> bool:
    """Whether weights of at most a byte stand beside scales: quantized, but in the model's shapes."""
    is_scaled = any(map(is_small_float, tensors)) and any(SCALES(tensor.name) for tensor in tensors)
    return is_scaled and not base_of_adapter(tensors)


def layers(tensors: list[Tensor]) -> set[int]:
    """The numbers of a model's layers; none of an adapter, which may be of some layers only."""
    if any(ADAPTER.search(tensor.name) for tensor in tensors):
        return set()
    stacks: dict[str, set[int]] = {}
    for tensor in tensors:
        if match := LAYER.search(tensor.name):
            stacks.setdefault(tensor.name[: match.start(1)], set()).add(int(match[1]))
    return max(stacks.values(), key=len, default=set())


def matrices(tensors: list[Tensor]) -> list[Tensor]:
    """Those of integers that may be packed weights, whatever they are called."""
    integers = [one for one in tensors if one.dtype in INTEGERS - {"BOOL"} and len(one.shape) > 1]
    return [
        one
        for one in integers
        if not any(applies(one.name) for applies in NOT_TRAINED.values()) and not is_causal_mask(one)
    ]


def is_mostly_integers(tensors: list[Tensor]) -> bool:
    return 2 * sum(map(bits, matrices(tensors))) > sum(map(bits, tensors))


def bits(tensor: Tensor) -> int:
    width = re.search(r"\d+", tensor.dtype)
    count = int(width[0]) if width else 8
    for dimension in tensor.shape:
        count *= dimension
    return count


def said(names: list[str]) -> str:
    """The first of `names`, and how many more there are."""
    shown = ", ".join(printable(name, LONGEST_SAID) for name in names[:LISTED])
    return shown + f" and {len(names) - LISTED} more" * (len(names) > LISTED)
