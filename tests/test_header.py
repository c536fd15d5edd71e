"""The header of a safetensors file: what is read of it, and that nothing else than one line comes of a bad one."""

import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import header
from benchmarks.harness.header import BadFile, Tensor

TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
ROOT = Path(__file__).parent.parent


def content(tensors, data: int = 16) -> bytes:
    """A file of these tensors, or of this JSON, with `data` bytes of data."""
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def changed(**fields) -> bytes:
    return content({"w": TENSOR | fields})


TWICE = (
    b'{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
)
DEEP = b'{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16],"more":' + b"[" * 10**5 + b"]" * 10**5 + b"}}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"\1\2\3", "within its header; get it anew"),
        (struct.pack("<Q", 500) + b"{", "it ends after 9 bytes, within its header; get it anew"),
        (struct.pack("<Q", 2**63), "a header of 9223372036854775808 bytes, the limit is"),
        (struct.pack("<Q", header.LARGEST_HEADER + 1) + b"\1", "the limit is"),
        (content(b"no JSON at all"), "invalid JSON"),
        (content(b"[1, 2]"), "invalid JSON"),
        (content(b"[" * 10**5), "invalid JSON"),
        (content(b'{"w\xff": 1}'), "UTF-8"),
        (DEEP.join([struct.pack("<Q", len(DEEP)), bytes(16)]), "recursion"),
        (content(TWICE), "the name 'w' occurs twice"),
        (changed(shape=[-2, -2]), "invalid value: integer `-2`"),
        (changed(shape=[2**62, 2**62]), "overflow"),
        (changed(shape=[2**70]), "invalid JSON"),
        (changed(shape=[2.0, 2]), "floating point"),
        (changed(shape="22"), "invalid type: string"),
        (changed(shape=[2**31, 2**31]), "overflow"),
        (changed(dtype="F31"), "unknown variant `F31`"),
        (changed(dtype=None), "invalid JSON"),
        (changed(data_offsets=[0, 12]), "invalid"),
        (changed(data_offsets=[4, 20]), "invalid offset"),
        (content({"w": TENSOR}, data=15), "it ends after 88 of 89 bytes; get it anew"),
        (content({"w": TENSOR}, data=17), "not fully covered"),
        (content({"w": TENSOR, "u": TENSOR}), "invalid offset"),
        (changed(shape=[3, 2]), "invalid"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, data, reason):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadFile) as refused:
        header.read(path)
    assert reason in str(refused.value)
    assert str(path) in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("data", "is_cut"),
    [
        (content({"w": TENSOR}, data=0), True),
        (content({"w": TENSOR})[:40], True),
        (content({"w": TENSOR}, data=17), False),
        (changed(dtype="F31"), False),
        (content(TWICE), False),
        (changed(data_offsets=[0, 2**70]), False),
        (changed(data_offsets=["a", "b"]), False),
        (content(b'{"w": 1}'), False),
    ],
)
def test_only_what_lacks_its_end_is_to_be_got_anew(tmp_path, data, is_cut):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadFile) as refused:
        header.read(path)
    assert ("get it anew" in str(refused.value)) == is_cut


def test_a_header_with_too_many_tensors_is_called_so(tmp_path, monkeypatch):
    path = tmp_path / "many.safetensors"
    tensors = {f"w{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(100)}
    path.write_bytes(content(tensors, data=400))
    assert len(header.read(path)) == 100
    monkeypatch.setattr(header, "LARGEST_HEADER", 1000)
    with pytest.raises(BadFile, match=r"too many tensors: a header of \d+ bytes, the limit is 1000"):
        header.read(path)


def test_a_tensor_s_name_has_a_bound(tmp_path):
    path = tmp_path / "long.safetensors"
    path.write_bytes(content({"x" * header.LONGEST_NAME: TENSOR}))
    assert len(header.read(path)) == 1
    path.write_bytes(content({"x" * (header.LONGEST_NAME + 1): TENSOR}))
    with pytest.raises(BadFile, match=r"the name x{40}\.\.\. is longer than 1000 characters"):
        header.read(path)


def test_the_places_of_the_data_are_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content({"w": TENSOR, "__metadata__": {"format": "pt"}}))
    assert header.places(path) == {"w": (0, 16)}


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    tmp_path.joinpath("circle").symlink_to("circle")
    tmp_path.joinpath("nowhere").symlink_to("gone")
    for path, reason in (
        (tmp_path, "not a file"),
        (tmp_path / "pipe", "not a file"),
        (tmp_path / "no", "no such file"),
        (tmp_path / "circle", "a link that leads to no file"),
        (tmp_path / "nowhere", "a link that leads to no file"),
    ):
        with pytest.raises(BadFile, match=reason):
            header.read(path)


def test_tensors_are_read_in_the_order_of_their_data(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "z": {"dtype": "BF16", "shape": [3, 2], "data_offsets": [0, 12]},
        "a": {"dtype": "I64", "shape": [], "data_offsets": [12, 20]},
        "": {"dtype": "F32", "shape": [0, 7], "data_offsets": [20, 20]},
    }
    path.write_bytes(content({"__metadata__": {"format": "mlx"}, **tensors}, data=20))
    assert sorted(header.read(path)) == [Tensor("", "F32", (0, 7)), Tensor("a", "I64", ()), Tensor("z", "BF16", (3, 2))]
    assert [tensor.name for tensor in header.read(path) if 0 not in tensor.shape] == ["z", "a"]
    path.write_bytes(content({}, data=0))
    assert header.read(path) == []


def test_what_mlx_writes_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    arrays = {"a": mx.zeros((3, 4), mx.bfloat16), "b": mx.zeros((5,)), "c": mx.zeros((2,), mx.uint32)}
    mx.save_safetensors(str(path), arrays, {"made": "here"})
    assert set(header.read(path)) == {Tensor("a", "BF16", (3, 4)), Tensor("b", "F32", (5,)), Tensor("c", "U32", (2,))}


def test_no_data_is_read(tmp_path):
    """A file of 40 GB without blocks on the disk, in a process that may have 1 GB of memory beside its mappings."""
    path = tmp_path / "large.safetensors"
    size = 10 * 2**30
    path.write_bytes(content({"w": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}, data=0))
    os.truncate(path, path.stat().st_size + 4 * size)
    code = (
        "import sys; from pathlib import Path; from benchmarks.harness import header;"
        "print(header.read(Path(sys.argv[1]))[0].shape)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))

    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, preexec_fn=limit
    )
    assert done.stdout.startswith(f"({size},)"), done.stderr


def outcome(data: bytes) -> list[Tensor] | None:
    """What `read` makes of a file of `data`; None if it refuses it, as it should, in one short line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f.safetensors")
        path.write_bytes(data)
        refusal = ""
        try:
            return header.read(path)
        except BadFile as error:
            refusal = str(error)
    assert refusal.isprintable()
    assert len(refusal) < 600
    return None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    assert outcome(data) in (None, [])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_of_the_right_length_are_refused(data):
    assert outcome(struct.pack("<Q", len(data)) + data) in (None, [])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DIMENSIONS = st.lists(st.integers(-3, 2**64), max_size=4)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "BOOL", "F4", "F8_E4M3", "C64", "f32"]) | ANYTHING,
        "shape": DIMENSIONS | ANYTHING,
        "data_offsets": st.lists(st.integers(-1, 2**64), min_size=2, max_size=2) | ANYTHING,
        "extra": ANYTHING,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=5), FIELDS | ANYTHING, max_size=3), st.integers(0, 40))
def test_a_header_of_the_right_form_is_read_or_refused(tensors, data):
    names = outcome(content({"w": TENSOR} | tensors, data))
    assert names is None or {tensor.name for tensor in names} == ({"w"} | set(tensors)) - {"__metadata__"}


VALID = content({"w": TENSOR, "__metadata__": {"format": "pt"}})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.data())
def test_a_valid_file_with_other_bytes_or_an_end_too_soon_is_read_or_refused(replaced, draw):
    mutated = bytearray(VALID)
    for place, value in replaced:
        mutated[place] = value
    kept = draw.draw(st.integers(0, len(mutated)))
    outcome(bytes(mutated))
    assert outcome(bytes(mutated[:kept])) is None or kept == len(mutated)


def test_text_of_a_file_is_printed_with_escapes_and_not_at_length():
    assert header.printable("a\x1b[31m\n\u202eé") == "a\\x1b[31m\\n\\u202eé"
    assert len(header.printable("x" * 10**6)) == header.LONGEST_TEXT + 3
