"""Which files are one model's: named, in an index or a folder; that none is missing, that no index leads elsewhere."""

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import model, shards
from benchmarks.harness.header import BadFile

INDEX = "model.safetensors.index.json"


def put(folder: Path, *names: str) -> list[str]:
    """Safetensors files of one tensor each, called as its file; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        folder.joinpath(name).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    return [str(folder / name) for name in names]


def index(folder: Path, *names: str, file: str = INDEX) -> str:
    folder.joinpath(file).write_text(json.dumps({"metadata": {}, "weight_map": dict(zip(names, names, strict=True))}))
    return str(folder / file)


def names_of(*sources: str) -> list[str]:
    return [path.name for path in shards.files(list(sources)).paths]


def refusal(*sources: str) -> str:
    with pytest.raises(BadFile) as refused:
        shards.files(list(sources))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 900
    return str(refused.value)


def numbered(total: int, pattern: str = "model-{:05d}-of-{:05d}.safetensors", first: int = 1) -> list[str]:
    return [pattern.format(number, total) for number in range(first, first + total)]


PATTERNS = [
    "model-{:05d}-of-{:05d}.safetensors",
    "diffusion_pytorch_model.fp16-{:05d}-of-{:05d}.safetensors",
    "model.safetensors-{:05d}-of-{:05d}.safetensors",
    "weights_{}_of_{}.safetensors",
    "consolidated-{:02d}of{:02d}.safetensors",
    "Model-{:05d}-OF-{:05d}.SAFETENSORS",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("first", [0, 1])
def test_some_of_a_numbered_set_are_a_part_and_all_are_a_model(tmp_path, pattern, first):
    paths = put(tmp_path, *numbered(3, pattern, first))
    assert len(shards.files(paths).paths) == 3
    for part in (paths[:1], paths[1:], [paths[0], paths[2]]):
        assert f"{len(part)} of 3 files, so a part of a model" in refusal(*part)


def test_the_number_that_is_missing_is_said(tmp_path):
    paths = put(tmp_path, *numbered(4))
    assert "number 3 is missing" in refusal(paths[0], paths[1], paths[3])
    assert "number 1 is missing" in refusal(*paths[1:])


def test_a_name_without_a_number_is_a_model(tmp_path):
    for name in (
        "adapters.safetensors",
        "0000100_adapters.safetensors",
        "lora_rank-16.safetensors",
        "v1-of.safetensors",
    ):
        assert names_of(*put(tmp_path, name)) == [name]
    assert names_of(*put(tmp_path, "model-00001-of-00001.safetensors")) == ["model-00001-of-00001.safetensors"]


def test_a_link_with_another_name_to_one_of_several_is_a_part(tmp_path):
    put(tmp_path, *numbered(2))
    tmp_path.joinpath("mine.safetensors").symlink_to(numbered(2)[1])
    assert "1 of 2 files" in refusal(str(tmp_path / "mine.safetensors"))


def test_one_process_s_part_of_every_tensor_is_refused(tmp_path):
    assert "part of every tensor" in refusal(*put(tmp_path, "model-rank-0-part-0.safetensors"))


def test_a_file_that_an_index_beside_it_names_with_others_is_a_part(tmp_path):
    paths = put(tmp_path, "a.safetensors", "b.safetensors", "other.safetensors")
    index(tmp_path, "a.safetensors", "b.safetensors")
    assert "one of several, a part of a model: model.safetensors.index.json names 2 files" in refusal(paths[1])
    assert names_of(paths[0], paths[1]) == ["a.safetensors", "b.safetensors"]
    assert names_of(paths[2]) == ["other.safetensors"]


def test_a_bad_index_beside_a_file_does_not_matter(tmp_path):
    paths = put(tmp_path, "a.safetensors")
    for text in ("", "{", "[]", "[" * 10**5, '{"weight_map": 1}'):
        tmp_path.joinpath(INDEX).write_text(text)
        assert names_of(*paths) == ["a.safetensors"]
    tmp_path.joinpath(INDEX).unlink()
    os.mkfifo(tmp_path / INDEX)
    assert names_of(*paths) == ["a.safetensors"]


def test_an_index_is_followed_to_its_files(tmp_path):
    put(tmp_path, *numbered(3))
    path = index(tmp_path, *numbered(3)[::-1], numbered(3)[0])
    assert sorted(names_of(path)) == numbered(3)
    assert sorted(names_of(str(tmp_path / numbered(3)[0]), path)) == numbered(3)  # as model* names them
    loaded = model.load([path])
    assert (loaded.name, loaded.parameter_count) == ("model.safetensors.index.json (3 files)", 6)


def test_files_of_an_index_that_are_missing_are_said(tmp_path):
    put(tmp_path, numbered(3)[1])
    told = refusal(index(tmp_path, *numbered(3)))
    assert "of the 3 files that it names 2 are missing: model-00001-of-00003.safetensors, model-00003" in told


ELSEWHERE = [
    "/etc/passwd",
    "../model.safetensors",
    "sub/model.safetensors",
    "..",
    ".",
    "",
    "~/x/model.safetensors",
    "C:\\model.safetensors",
    "a\\b.safetensors",
    ".hidden.safetensors",
    "a\0.safetensors",
    "a\n\x1b[31m.safetensors",
    "\ud800.safetensors",
    "x" * 300,
    "字" * 100,
    "http://example.org/model.safetensors",
]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    put(tmp_path, "model.safetensors")
    put(tmp_path / "sub", "model.safetensors")
    assert "no plain name of a file in its own folder" in refusal(index(tmp_path / "sub", "model.safetensors", name))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"weight_map": {}}',
        b'{"weight_map": []}',
        b'{"weight_map": {"w": 1}}',
        b'{"weight_map": {"w": ["model.safetensors"]}}',
        b'{"weight_map": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        b'{"weight_map": ' + b"9" * 10**4 + b"}",
        b'{"num_hidden_layers": 4}',
    ],
)
def test_what_is_no_index_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text)
    assert "no index of safetensors files" in refusal(str(path))


def test_an_index_has_bounds(tmp_path, monkeypatch):
    path = index(tmp_path, *numbered(shards.MOST_FILES + 1))
    assert f"at most {shards.MOST_FILES} are read" in refusal(path)
    monkeypatch.setattr(shards, "LARGEST_INDEX", 100)
    assert "too long for an index" in refusal(path)


def test_tensors_of_an_index_that_its_files_lack_are_said(tmp_path):
    put(tmp_path, *numbered(2))
    path = Path(index(tmp_path, *numbered(2)))
    path.write_text(path.read_text().replace('"model-00001-of-00002.safetensors":', '"gone\\n":'))
    told = "the index names tensors that its files do not have, perhaps as it is of another version: gone\\n"
    assert model.load([str(path)]).notes == [told]


def test_an_index_is_not_followed_to_another_index(tmp_path):
    with pytest.raises(BadFile, match="no safetensors file: it is JSON"):
        model.load([index(tmp_path, INDEX)])


def test_an_index_of_pytorch_files_is_called_so(tmp_path):
    for name in numbered(2, "pytorch_model-{:05d}-of-{:05d}.bin"):
        tmp_path.joinpath(name).write_bytes(b"\x80\x02}")
    path = index(tmp_path, *numbered(2, "pytorch_model-{:05d}-of-{:05d}.bin"), file="pytorch_model.bin.index.json")
    with pytest.raises(BadFile, match="pickle, as old PyTorch"):
        model.load([path])


# A folder


def test_a_folder_is_followed_to_its_files_by_its_index(tmp_path):
    put(tmp_path, *numbered(2), "consolidated.safetensors", "._model-00001-of-00002.safetensors")
    index(tmp_path, *numbered(2))
    found = shards.files([str(tmp_path)])
    assert sorted(path.name for path in found.paths) == numbered(2)
    assert found.notes == ["left out, as it may be another model's: consolidated.safetensors"]
    assert model.load([str(tmp_path)]).notes == found.notes


def test_a_folder_without_an_index_has_one_file_or_one_set(tmp_path):
    put(tmp_path / "one", "model.safetensors")
    assert names_of(str(tmp_path / "one")) == ["model.safetensors"]
    put(tmp_path / "set", *numbered(3))
    assert names_of(str(tmp_path / "set")) == numbered(3)
    put(tmp_path / "part", *numbered(3)[:2])
    assert "2 of 3 files, so a part of a model" in refusal(str(tmp_path / "part"))
    put(tmp_path / "many", "adapters.safetensors", "0000100_adapters.safetensors", "0000200_adapters.safetensors")
    assert "3 files that may not be one model's; name those that are: 0000100" in refusal(str(tmp_path / "many"))


def test_files_further_down_are_left_out_and_said(tmp_path):
    put(tmp_path, "model.safetensors")
    put(tmp_path / "2_Dense", "model.safetensors")
    put(tmp_path / ".cache", "model.safetensors")
    assert model.load([str(tmp_path)]).notes == ["left out, as it may be another model's: 2_Dense/model.safetensors"]


def test_a_folder_has_a_bound(tmp_path, monkeypatch):
    put(tmp_path, "model.safetensors", "a", "b")
    monkeypatch.setattr(shards, "MOST_ENTRIES", 3)
    assert names_of(str(tmp_path)) == ["model.safetensors"]
    put(tmp_path, "c")
    assert "more than 3 entries; name the model's files" in refusal(str(tmp_path))


def test_of_several_indices_one_must_be_named(tmp_path):
    put(tmp_path, "a.safetensors", "b.safetensors")
    first = index(tmp_path, "a.safetensors", file="a.safetensors.index.json")
    index(tmp_path, "b.safetensors", file="b.safetensors.index.json")
    assert "2 indices, of which only one can be meant" in refusal(str(tmp_path))
    assert names_of(first) == ["a.safetensors"]


def test_the_links_of_a_download_are_followed(tmp_path):
    tmp_path.joinpath("blobs").mkdir()
    snapshot = tmp_path / "snapshots" / "abc"
    put(snapshot, *numbered(2))
    for name, blob in zip(numbered(2), ("0123", "4567"), strict=True):
        snapshot.joinpath(name).rename(tmp_path / "blobs" / blob)
        snapshot.joinpath(name).symlink_to(f"../../blobs/{blob}")
    index(snapshot, *numbered(2))
    assert model.load([str(snapshot)]).parameter_count == 4
    assert f"name the one that has them, such as {snapshot}" in refusal(str(tmp_path))


def test_a_folder_without_such_files_says_what_is_there(tmp_path):
    assert "no safetensors file in this folder; name the model's files" in refusal(str(tmp_path))
    tmp_path.joinpath("pytorch_model.bin").write_bytes(b"")
    assert "but pytorch_model.bin; convert the model to safetensors" in refusal(str(tmp_path))
    put(tmp_path / "unet", "model.safetensors")
    assert f"name the one that has them, such as {tmp_path / 'unet'}" in refusal(str(tmp_path))


def test_links_in_a_circle_end_in_one_line(tmp_path):
    circle = tmp_path / "model.safetensors"
    circle.symlink_to("model.safetensors")
    tmp_path.joinpath("again").symlink_to(".")
    for source in (circle, tmp_path, tmp_path / "again"):
        with pytest.raises(BadFile, match="a link that leads to no file"):
            model.load([str(source)])
    assert "1 are missing" in refusal(index(tmp_path, "model.safetensors"))


def test_more_tensors_than_the_bound_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "MOST_TENSORS", 3)
    paths = put(tmp_path, *"abcd")
    assert model.load(paths[:3]).parameter_count == 6
    with pytest.raises(model.BadModel, match="/d: with it too many tensors, the limit is 3"):
        model.load(paths)


def test_more_files_than_the_bound_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MOST_FILES", 2)
    assert "3 files, at most 2 are read" in refusal(*put(tmp_path, "a", "b", "c"))


NAMES = st.text(max_size=12) | st.sampled_from([*ELSEWHERE, "model.safetensors"])
ANYTHING = st.recursive(
    st.none() | st.integers() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={"weight_map": st.dictionaries(NAMES, NAMES) | ANYTHING}) | ANYTHING)
def test_any_index_is_followed_within_its_folder_or_refused_in_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("model")
    put(folder, "model.safetensors")
    path = folder / INDEX
    path.write_text(json.dumps(content))
    told = ""
    found = [folder / "model.safetensors"]
    try:
        found = shards.files([str(path)]).paths
    except BadFile as error:
        told = str(error)
    assert found == [folder / "model.safetensors"]
    assert told == "" or told.isprintable()
    assert len(told) < 900


@given(st.text(alphabet="model-0123456789of_. OF", max_size=40))
def test_any_name_is_of_a_set_or_of_none(name):
    before, total, after = shards.set_of(name)
    assert len(before) + len(after) <= len(name)
    assert total >= 0
