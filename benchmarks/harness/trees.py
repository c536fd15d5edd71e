"""The parameter trees: the shapes of published architectures and a few made to show one thing.

A tree is nested dicts and lists whose leaves are `Shape`s. Nothing here needs MLX.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

SWEEP = tuple(2**power for power in range(10, 27, 2))
"""Elements of the size sweep's single leaf."""


class Shape(tuple):
    """A leaf's dimensions. A class of its own, because a tree may contain plain tuples.

    `dtype` is the leaf's own, by MLX's name, in a tree whose leaves differ; None where the precision decides.
    """

    dtype: str | None = None

    @property
    def size(self) -> int:
        return math.prod(self)


def shape(*dimensions: int) -> Shape:
    return Shape(dimensions)


def leaves(tree: Any) -> Iterator[Shape]:
    """The leaves of `tree`, in MLX's order."""
    if isinstance(tree, Shape):
        yield tree
    else:
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(child)


def mapped(function: Callable[[Shape], Any], tree: Any) -> Any:
    """`tree` with `function(leaf)` in every leaf's place."""
    if isinstance(tree, Shape):
        return function(tree)
    if isinstance(tree, dict):
        return {key: mapped(function, child) for key, child in tree.items()}
    return [mapped(function, child) for child in tree]


def parameter_count(tree: Any) -> int:
    return sum(leaf.size for leaf in leaves(tree))


def one_leaf() -> Any:
    """16 Mi parameters in one leaf: MLX fuses the scalar arithmetic of a single leaf into its kernel."""
    return {"weight": shape(2**24)}


def two_leaves() -> Any:
    """16 Mi parameters in two leaves: the smallest tree whose scalar arithmetic is shared."""
    return {"weight": [shape(2**23), shape(2**23)]}


def thousand_leaves() -> Any:
    """1000 leaves of 1000: launches and host dispatch, hardly any bytes."""
    return {"layers": [{"weight": shape(1000)} for _ in range(1000)]}


def nested() -> Any:
    """Dicts and lists 24 deep with a leaf on every level: the cost of walking a tree."""
    tree: Any = {"weight": shape(256, 256)}
    for depth in range(23):
        tree = {"weight": shape(256, 256), "children": [tree]} if depth % 2 else [shape(256), tree]
    return {"root": tree}


def gpt2() -> Any:
    """GPT-2 124M (Radford et al. 2019): 12 layers of 768, vocabulary 50257, the output head tied."""
    width, layers, vocabulary, context = 768, 12, 50257, 1024

    def linear(inputs: int, outputs: int) -> Any:
        return {"weight": shape(inputs, outputs), "bias": shape(outputs)}

    def norm() -> Any:
        return {"weight": shape(width), "bias": shape(width)}

    block = {
        "ln_1": norm(),
        "attn": {"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)},
        "ln_2": norm(),
        "mlp": {"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)},
    }
    return {
        "wte": {"weight": shape(vocabulary, width)},
        "wpe": {"weight": shape(context, width)},
        "h": [block] * layers,
        "ln_f": norm(),
    }


LLAMA_WIDTH, LLAMA_LAYERS, LLAMA_KEY_VALUE = 2048, 16, 512


def llama_1b() -> Any:
    """Llama-3.2-1B (Meta 2024): 16 layers of 2048, 8 key-value heads of 64, vocabulary 128256, embeddings tied."""
    width, hidden, vocabulary = LLAMA_WIDTH, 8192, 128256
    layer = {
        "self_attn": {
            "q_proj": {"weight": shape(width, width)},
            "k_proj": {"weight": shape(LLAMA_KEY_VALUE, width)},
            "v_proj": {"weight": shape(LLAMA_KEY_VALUE, width)},
            "o_proj": {"weight": shape(width, width)},
        },
        "mlp": {
            "gate_proj": {"weight": shape(hidden, width)},
            "up_proj": {"weight": shape(hidden, width)},
            "down_proj": {"weight": shape(width, hidden)},
        },
        "input_layernorm": {"weight": shape(width)},
        "post_attention_layernorm": {"weight": shape(width)},
    }
    return {
        "embed_tokens": {"weight": shape(vocabulary, width)},
        "layers": [layer] * LLAMA_LAYERS,
        "norm": {"weight": shape(width)},
    }


def llama_1b_lora() -> Any:
    """LoRA of rank 8 on q_proj and v_proj of Llama-3.2-1B (Hu et al. 2021): many small leaves, few parameters."""
    rank, width = 8, LLAMA_WIDTH

    def adapter(outputs: int) -> Any:
        return {"lora_a": shape(width, rank), "lora_b": shape(rank, outputs)}

    layer = {"self_attn": {"q_proj": adapter(width), "v_proj": adapter(LLAMA_KEY_VALUE)}}
    return {"layers": [layer] * LLAMA_LAYERS}


def resnet50() -> Any:
    """ResNet-50 (He et al. 2015) as in torchvision: convolutions without bias, batch norms, 1000 classes."""

    def convolution(inputs: int, outputs: int, kernel: int) -> Any:
        return {"weight": shape(outputs, kernel, kernel, inputs)}

    def norm(width: int) -> Any:
        return {"weight": shape(width), "bias": shape(width)}

    def bottleneck(inputs: int, width: int, outputs: int) -> Any:
        block = {
            "conv1": convolution(inputs, width, 1),
            "bn1": norm(width),
            "conv2": convolution(width, width, 3),
            "bn2": norm(width),
            "conv3": convolution(width, outputs, 1),
            "bn3": norm(outputs),
        }
        if inputs != outputs:
            block["downsample"] = [convolution(inputs, outputs, 1), norm(outputs)]
        return block

    tree: Any = {"conv1": convolution(3, 64, 7), "bn1": norm(64)}
    inputs = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
        outputs = 4 * width
        tree[f"layer{stage}"] = [bottleneck(outputs if block else inputs, width, outputs) for block in range(blocks)]
        inputs = outputs
    tree["fc"] = {"weight": shape(1000, inputs), "bias": shape(1000)}
    return tree


def vit_b16() -> Any:
    """ViT-B/16 (Dosovitskiy et al. 2020) as in torchvision: 12 layers of 768, 197 positions, 1000 classes."""
    width = 768

    def linear(inputs: int, outputs: int) -> Any:
        return {"weight": shape(outputs, inputs), "bias": shape(outputs)}

    def norm() -> Any:
        return {"weight": shape(width), "bias": shape(width)}

    layer = {
        "ln_1": norm(),
        "self_attention": {"in_proj": linear(width, 3 * width), "out_proj": linear(width, width)},
        "ln_2": norm(),
        "mlp": [linear(width, 4 * width), linear(4 * width, width)],
    }
    return {
        "class_token": shape(1, 1, width),
        "conv_proj": {"weight": shape(width, 16, 16, 3), "bias": shape(width)},
        "pos_embedding": shape(1, 197, width),
        "layers": [layer] * 12,
        "ln": norm(),
        "head": linear(width, 1000),
    }


CATALOGUE: dict[str, Callable[[], Any]] = {
    tree.__name__: tree
    for tree in (
        one_leaf,
        two_leaves,
        thousand_leaves,
        nested,
        llama_1b_lora,
        resnet50,
        vit_b16,
        gpt2,
        llama_1b,
    )
}


def build(name: str) -> Any:
    """The tree called `name`: one of CATALOGUE, or `leaf_<elements>` for a single leaf of that many elements.

    Raises ValueError that lists the names there are.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]()
    prefix, _, elements = name.rpartition("_")
    if prefix == "leaf" and elements.isdecimal() and int(elements) > 0:
        return {"weight": shape(int(elements))}
    raise ValueError(f"unknown tree {name!r}; choose one of: {', '.join(CATALOGUE)}, or leaf_<elements>")
