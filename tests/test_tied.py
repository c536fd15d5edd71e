"""A head that is stored a second time: the data tells, and where it does not, the name is said."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import header, model, tied

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
RANDOM = np.random.default_rng(0).standard_normal((512, 64), dtype=np.float32)
OTHER = np.random.default_rng(1).standard_normal((512, 64), dtype=np.float32)
WORDS = {"float32": "F32", "float16": "F16"}


def save(path: Path, **arrays: np.ndarray) -> str:
    header, data = {}, b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": WORDS[array.dtype.name], "shape": array.shape, "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def loaded(folder: Path, without: str | None = None, **arrays: np.ndarray) -> model.Model:
    return model.load([save(folder / "m.safetensors", **arrays)], without=without)


NAMES = [
    (EMBEDDING, HEAD),
    ("transformer.wte.weight", HEAD),
    ("tok_embeddings.weight", "output.weight"),
    ("gpt_neox.embed_in.weight", "embed_out.weight"),
    ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    ("model.decoder.embed_tokens.weight", "proj_out.weight"),
    ("shared.weight", "encoder.embed_tokens.weight"),
]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_head_with_its_embedding_s_data_is_left_out_and_said(tmp_path, names, turned):
    arrays = dict.fromkeys(reversed(names) if turned else names, RANDOM)
    found = loaded(tmp_path, **arrays)
    assert found.parameter_count == RANDOM.size
    assert len(found.notes) == 1
    assert found.notes[0].startswith("left out, as not trained: a tied weight, stored twice: ")
    assert found.notes[0].split(": ")[-1] in (names if names[0] == "shared.weight" else names[1:])


@pytest.mark.parametrize("names", NAMES)
def test_a_head_with_data_of_its_own_is_counted(tmp_path, names):
    found = loaded(tmp_path, **{names[0]: RANDOM, names[1]: OTHER})
    assert (found.parameter_count, found.notes) == (2 * RANDOM.size, [])


def test_a_head_that_differs_at_its_end_only_is_counted(tmp_path):
    changed = RANDOM.copy()
    changed[-1, -1] += 1
    assert loaded(tmp_path, **{EMBEDDING: RANDOM, HEAD: changed}).parameter_count == 2 * RANDOM.size


@pytest.mark.parametrize("value", [0, 1, 0.1])
def test_where_the_data_does_not_tell_the_head_is_counted_and_said(tmp_path, value):
    alike = np.full_like(RANDOM, value)
    found = loaded(tmp_path, **{EMBEDDING: alike, HEAD: alike})
    assert found.parameter_count == 2 * RANDOM.size
    assert found.notes == [
        "counted, though it may not be trained (may be its embedding, tied and stored twice; "
        f"--without leaves it out): {HEAD}"
    ]
    found = loaded(tmp_path, "lm_head", **{EMBEDDING: alike, HEAD: alike})
    assert (found.parameter_count, found.notes) == (RANDOM.size, [f"left out, as --without asks: {HEAD}"])


def test_a_head_of_another_dtype_is_counted_and_said(tmp_path):
    found = loaded(tmp_path, **{EMBEDDING: RANDOM, HEAD: RANDOM.astype(np.float16)})
    assert found.parameter_count == 2 * RANDOM.size
    assert HEAD in found.notes[0]


def test_a_head_whose_embedding_is_left_out_stays(tmp_path):
    found = loaded(tmp_path, "embed", **{EMBEDDING: RANDOM, HEAD: RANDOM})
    assert (found.parameter_count, found.notes) == (RANDOM.size, [f"left out, as --without asks: {EMBEDDING}"])


def test_layers_and_other_shapes_are_not_taken_for_it(tmp_path):
    names = ["h.0.head.weight", "h.1.head.weight", EMBEDDING.replace("weight", "bias"), "norm.weight"]
    arrays = dict.fromkeys(names, RANDOM) | {EMBEDDING: RANDOM[:-1], HEAD: RANDOM}
    assert loaded(tmp_path, **arrays).notes == []


def test_what_is_alike_in_two_layers_is_counted_twice(tmp_path):
    assert loaded(tmp_path, **dict.fromkeys(["h.0.wte.weight", "h.1.wte.weight"], RANDOM)).parameter_count == 65536


def test_the_two_may_lie_in_two_files(tmp_path):
    paths = [
        save(tmp_path / "a.safetensors", **{HEAD: RANDOM}),
        save(tmp_path / "b.safetensors", **{EMBEDDING: RANDOM}),
    ]
    assert model.load(paths).parameter_count == RANDOM.size


def test_few_bytes_are_read_of_however_many_candidates(tmp_path, monkeypatch):
    arrays = {f"w{number}_head.weight": np.full((2, 2), number, np.float32) for number in range(200)}
    path = Path(save(tmp_path / "m.safetensors", **{EMBEDDING: np.full((2, 2), -1, np.float32)}, **arrays))
    looks = []
    some_data = tied.some_data
    monkeypatch.setattr(tied, "some_data", lambda *place: looks.append(place) or some_data(*place))
    assert tied.look([path], [header.read(path)]) == tied.Tied({}, {})
    assert 2 <= len(looks) <= tied.MOST_CANDIDATES
    assert sum(map(len, some_data(*looks[0]))) <= tied.LOOKS * tied.LOOK_BYTES
