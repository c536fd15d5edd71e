"""What of a file's tensors is trained: no packed weights, statistics, masks, frequencies or optimizer's state."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import pytest
from mlx.utils import tree_flatten

from benchmarks.harness import header, model, roles
from benchmarks.harness.header import Tensor

NORM = Tensor("norm.weight", "BF16", (64,))
WEIGHT = Tensor("layer.weight", "BF16", (64, 64))


def tensor(name: str, dtype: str = "F32", *shape: int) -> Tensor:
    return Tensor(name, dtype, shape)


def loaded(*tensors: Tensor, dtype: str | None = None, without: str | None = None) -> model.Model:
    return model.from_tensors(["m.safetensors"], [list(tensors)], dtype, without)


def refusal(*tensors: Tensor, dtype: str | None = None, without: str | None = None) -> str:
    with pytest.raises(model.BadModel) as refused:
        loaded(*tensors, dtype=dtype, without=without)
    assert str(refused.value).isprintable()
    return str(refused.value)


# Quantized models

PACKED = {
    "MLX": [tensor("q.weight", "U32", 64, 8), tensor("q.scales", "BF16", 64, 1), tensor("q.biases", "BF16", 64, 1)],
    "MLX, mxfp4": [tensor("q.weight", "U32", 64, 8), tensor("q.scales", "U8", 64, 2)],
    "GPTQ or AWQ": [
        tensor("q.qweight", "I32", 8, 64),
        tensor("q.qzeros", "I32", 1, 8),
        tensor("q.scales", "F16", 1, 64),
    ],
    "bitsandbytes": [
        tensor("q.weight", "U8", 2048, 1),
        tensor("q.weight.absmax", "F32", 64),
        tensor("q.weight.quant_map", "F32", 16),
        tensor("q.weight.quant_state.bitsandbytes__nf4", "U8", 80),
    ],
    "bitsandbytes, 8 bits": [tensor("q.weight", "I8", 64, 64), tensor("q.SCB", "F32", 64)],
    "8-bit integers": [tensor("q.weight", "I8", 64, 64), tensor("q.weight_scale", "F32", 64, 1)],
    "MXFP4": [tensor("e.down_proj_blocks", "U8", 4, 64, 2, 16), tensor("e.down_proj_scales", "U8", 4, 64, 2)],
    "compressed-tensors": [tensor("q.weight_packed", "I32", 64, 8), tensor("q.weight_scale", "BF16", 64, 1)],
    "of a kind that its names do not tell": [tensor("q.tiles", "U16", 64, 64)],
}


@pytest.mark.parametrize("way", PACKED)
def test_packed_weights_are_no_model_to_train_and_the_way_is_named(way):
    told = refusal(*PACKED[way], NORM)
    assert f"a quantized model ({way.split(',')[0]}; packed integers: {PACKED[way][0].name}" in told
    assert "a quantized model" in refusal(*PACKED[way], NORM, dtype="bfloat16")


@pytest.mark.parametrize("way", ["MLX", "GPTQ or AWQ", "bitsandbytes"])
def test_few_packed_weights_beside_large_ones_are_found_too(way):
    assert "a quantized model" in refusal(*PACKED[way], tensor("embed_tokens.weight", "BF16", 10**6, 64))


@pytest.mark.parametrize("way", PACKED)
def test_packed_weights_that_are_left_out_by_name_do_not_matter(way):
    assert loaded(*PACKED[way], NORM, WEIGHT, without=r"^(q|e)\.").parameter_count == 64 + 64 * 64


def test_a_model_that_mlx_quantized_is_refused_and_its_adapter_is_not(tmp_path):
    network = nn.Sequential(nn.Linear(64, 64), nn.RMSNorm(64))
    nn.quantize(network)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(network.parameters())))
    with pytest.raises(model.BadModel, match=r"quantized model \(MLX; packed integers: layers\.0\.weight\)"):
        model.load([str(tmp_path)])


def test_an_adapter_s_leaves_are_counted_and_the_model_beside_it_is_not():
    adapter = [tensor("l.lora_a", "F32", 64, 8), tensor("l.lora_b", "F32", 8, 64)]
    base = [
        tensor("l.linear.weight", "U32", 64, 8),
        tensor("l.linear.scales", "BF16", 64, 1),
        tensor("l.linear.biases", "BF16", 64, 1),
    ]
    found = loaded(*adapter, *base, NORM)
    assert found.parameter_count == 2 * 8 * 64
    assert found.notes == [
        "left out, as not trained: the model that the adapter is of: l.linear.weight, l.linear.scales and 2 more"
    ]
    assert loaded(*adapter, tensor("l.linear.weight", "F32", 64, 64), tensor("l.m", "F32", 64)).parameter_count == 1088


@pytest.mark.parametrize("names", [("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")])
def test_all_of_an_adapter_s_own_file_is_counted(names):
    head = tensor("base_model.model.lm_head.weight", "F32", 10, 8)
    found = loaded(*(tensor(f"base_model.l.{name}", "F32", 8, 8) for name in names), head)
    assert (found.parameter_count, found.notes) == (208, [])


def test_numbers_of_eight_bits_are_counted_only_if_another_dtype_is_asked_for_and_their_scales_never():
    eight = [tensor("q.weight", "F8_E4M3", 64, 64), tensor("q.weight_scale_inv", "F32", 1, 1), NORM]
    assert "a quantized model (numbers of 8 bits or less beside scales)" in refusal(*eight)
    assert "--dtype bfloat16" in refusal(*eight)
    found = loaded(*eight, dtype="bfloat16")
    assert found.parameter_count == 64 * 64 + 64
    assert found.notes == [
        "left out, as not trained: scales of quantized weights: q.weight_scale_inv",
        "quantized: numbers of 8 bits or less are counted as if they were trained, in the dtype that is asked for",
    ]


def test_scales_are_weights_where_nothing_is_quantized():
    assert loaded(WEIGHT, tensor("attn.scales", "F32", 8), tensor("logit_scale", "F32")).parameter_count == 4096 + 9


# What is no weight

BUFFERS = [
    ("running statistics", tensor("bn.running_mean", "F32", 64)),
    ("running statistics", tensor("bn.running_var", "F32", 64)),
    ("running statistics", tensor("bn.num_batches_tracked", "I64")),
    ("running statistics", tensor("bn/moving_variance", "F32", 64)),
    ("rotary frequencies", tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 32)),
    ("rotary frequencies", tensor("rope.freqs", "F32", 32)),
    ("rotary frequencies", tensor("rope_freqs.weight", "F32", 32)),
    ("rotary frequencies", tensor("freqs_cis", "F32", 32, 2)),
    ("rotary frequencies", tensor("attn.rotary_emb.cos_cached", "F32", 1, 1, 64, 32)),
    ("running statistics", tensor("batch_stats/bn/mean", "F32", 64)),
    ("masks", tensor("h.0.attn.bias", "F32", 1, 1, 64, 64)),
    ("masks", tensor("h.0.attn.bias", "U8", 1, 1, 64, 64)),
    ("masks", tensor("h.0.attn.masked_bias", "F32")),
    ("masks", tensor("attn_mask", "F32", 64, 64)),
    ("masks", tensor("text.causal_mask", "BOOL", 64, 64)),
    ("positions", tensor("embeddings.position_ids", "F32", 1, 512)),
    ("positions", tensor("embeddings.position_ids", "I64", 1, 512)),
    ("positions", tensor("attn.relative_position_index", "I64", 49, 49)),
    ("noise schedules", tensor("alphas_cumprod", "F32", 1000)),
    ("noise schedules", tensor("sqrt_one_minus_alphas_cumprod", "F32", 1000)),
    ("noise schedules", tensor("betas", "F32", 1000)),
    ("an input's normalization", tensor("pixel_mean", "F32", 3, 1, 1)),
    ("an optimizer's state", tensor("optimizer.state.layer.exp_avg", "F32", 64, 64)),
    ("an optimizer's state", tensor("layer.weight.exp_avg_sq", "F32", 64, 64)),
    ("an optimizer's state", tensor("optimizer/layer/0", "F32", 64, 64)),
    ("an adapter's scale", tensor("lora_unet_q.alpha", "F32")),
    ("integers or bools", tensor("ids", "I32", 7)),
    ("without elements", tensor("nothing", "F32", 0, 3)),
]


@pytest.mark.parametrize(("what", "buffer"), BUFFERS, ids=lambda one: one.name if isinstance(one, Tensor) else "")
def test_what_is_no_weight_is_left_out_and_said_by_name(what, buffer):
    found = loaded(WEIGHT, buffer)
    assert found.parameter_count == 64 * 64
    assert found.notes == [f"left out, as not trained: {what}: {buffer.name}"]


WEIGHTS = [
    tensor("attn.bias", "F32", 64),
    tensor("conv.bias", "F32", 1, 1, 8, 4),
    tensor("relative_attention_bias.weight", "F32", 32, 8),
    tensor("mask_token", "F32", 1, 1, 64),
    tensor("pos_embed", "F32", 1, 197, 64),
    tensor("position_embeddings.weight", "F32", 512, 64),
    tensor("logit_scale", "F32"),
    tensor("A_log", "F32", 64),
    tensor("conv.weight_v", "F32", 64),
    tensor("mean.weight", "F32", 64),
    tensor("l.m", "F32", 64),
    tensor("l.v", "F32", 64),
    tensor("bn.mean_proj.weight", "F32", 64),
    tensor("norm.scale", "F32", 64),
    tensor("optimizers_head.weight", "F32", 8),
]


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda one: one.name)
def test_weights_with_names_that_are_nearly_such_are_counted(weight):
    found = loaded(WEIGHT, weight)
    assert found.parameter_count == 64 * 64 + header_size(weight)
    assert found.notes == []


def header_size(one: Tensor) -> int:
    return roles.bits(one) // 32


DOUBTFUL = [
    ("averages of weights", tensor("model_ema.layer.weight", "F32", 64)),
    ("the balance of experts", tensor("mlp.gate.e_score_correction_bias", "F32", 64)),
    ("fixed positions", tensor("decoder.embed_positions.weights", "F32", 64, 8)),
    ("a codebook's averages", tensor("quantizer.cluster_size", "F32", 64)),
    ("a spectral norm's vector", tensor("conv.weight_u", "F32", 64)),
]


@pytest.mark.parametrize(("what", "one"), DOUBTFUL, ids=lambda one: one.name if isinstance(one, Tensor) else "")
def test_what_may_not_be_trained_is_counted_and_said_until_it_is_left_out(what, one):
    assert loaded(WEIGHT, one).notes == [
        f"counted, though it may not be trained ({what}; --without leaves it out): {one.name}"
    ]
    assert loaded(WEIGHT, one).parameter_count > loaded(WEIGHT).parameter_count
    found = loaded(WEIGHT, one, without=f"^{one.name}$")
    assert found.notes == [f"left out, as --without asks: {one.name}"]
    assert found.parameter_count == 64 * 64


def test_batch_normalization_as_mlx_saves_it_is_counted_as_mlx_trains_it(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm(8), nn.RoPE(8), nn.LayerNorm(8))
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), dict(tree_flatten(network.parameters())))
    trained = sum(array.size for _, array in tree_flatten(network.trainable_parameters()))
    assert model.load([str(path)]).parameter_count == trained


def test_an_optimizer_s_state_as_mlx_saves_it_is_no_model_and_beside_one_is_left_out(tmp_path):
    network = nn.Linear(8, 8)
    optimizer = mlx.optimizers.AdamW(1e-3)
    optimizer.init(network.trainable_parameters())
    state = dict(tree_flatten(optimizer.state))
    mx.save_safetensors(str(tmp_path / "optimizer.safetensors"), state)
    with pytest.raises(model.BadModel, match=r"none is trained.*as not trained: an optimizer's state"):
        model.load([str(tmp_path / "optimizer.safetensors")])
    both = tmp_path / "both.safetensors"
    mx.save_safetensors(str(both), state | dict(tree_flatten(network.parameters())))
    assert model.load([str(both)]).parameter_count == 8 * 8 + 8
    assert all(tensor.name in state or tensor.name in ("weight", "bias") for tensor in header.read(both))


def test_the_step_of_an_optimizer_s_state_is_part_of_it():
    state = [tensor("state.0.exp_avg", "F32", 8), tensor("state.0.step", "F32"), tensor("learning_rate", "F32")]
    assert loaded(WEIGHT, *state).parameter_count == 64 * 64
    assert loaded(WEIGHT, *state[1:]).parameter_count == 64 * 64 + 2


@pytest.mark.parametrize("names", [("m.w", "v.w"), ("w/mu", "w/nu"), ("m.a.w", "v.a.w"), ("mu/w", "nu/w")])
def test_the_moments_of_any_optimizer_are_left_out_as_pairs_of_one_shape(names):
    first, second = (tensor(name, "F32", 8) for name in names)
    assert loaded(WEIGHT, first, second, tensor("count", "F32")).parameter_count == 64 * 64
    assert loaded(WEIGHT, first, tensor("count", "F32")).parameter_count == 64 * 64 + 9
    assert loaded(WEIGHT, first, tensor(names[1], "F32", 9)).parameter_count == 64 * 64 + 17


def test_what_a_part_looks_like_by_its_layers_is_said():
    def stack(*numbers: int) -> list[Tensor]:
        return [tensor(f"model.layers.{number}.q.weight", "F32", 4) for number in numbers]

    assert roles.layers([*stack(8, 9), tensor("other.h.0.weight", "F32", 4)]) == {8, 9}
    assert roles.layers([*stack(8, 9), tensor("l.lora_a", "F32", 4)]) == set()
    assert model.about([model.Path("nowhere/m")], stack(8, 9)) == [
        "its layers begin with number 8: perhaps a part of a model"
    ]
    assert model.about([model.Path("nowhere/m")], stack(0, 2, 4)) == []
    assert model.about([model.Path("nowhere/m")], stack(1, 3)) == []


def test_the_configuration_beside_the_file_is_heard(tmp_path):
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {f"layers.{number}.w": mx.zeros((2,)) for number in range(4)})
    told = {
        '{"num_hidden_layers": 4}': [],
        '{"num_hidden_layers": 32}': ["4 of the 32 layers of config.json: perhaps a part of a model"],
        '{"quantization": {"bits": 4}}': [
            "config.json names a quantization: if weights are quantized, they are not what is trained"
        ],
        '{"quantization": null, "num_hidden_layers": "many"}': [],
        "[" * 10**5: [],
        "\ufeff": [],
        "[]": [],
    }
    for text, notes in told.items():
        tmp_path.joinpath("config.json").write_text(text)
        assert model.load([str(path)]).notes == notes


# --without


def test_what_a_regular_expression_finds_is_left_out():
    tensors = [tensor(f"l.{number}.weight", "F32", 2) for number in range(5)]
    found = loaded(*tensors, without=r"\.[1-3]\.")
    assert found.parameter_count == 4
    assert found.notes == ["left out, as --without asks: l.1.weight, l.2.weight and 1 more"]


def test_a_regular_expression_that_helps_nobody_is_refused_in_one_line():
    assert "--without 'w(': no regular expression" in refusal(WEIGHT, without="w(")
    assert "longer than 300 characters" in refusal(WEIGHT, without="w" * 301)
    assert "--without finds none of its 1 tensors, called like layer.weight" in refusal(WEIGHT, without="lm_head")
    assert "none is trained" in refusal(WEIGHT, without="")
    assert "left out, as --without asks: layer.weight" in refusal(WEIGHT, without="w")
    with pytest.raises(model.BadModel, match="--without is for files"):
        model.load(["gpt2"], without="wte")


def test_a_regular_expression_that_searches_for_ever_is_ended(monkeypatch):
    monkeypatch.setattr("benchmarks.harness.namefilter.SECONDS", 0.2)
    assert "not searched for in 0.2 s" in refusal(tensor("a" * 60, "F32", 2), without="(a|a)+b")
