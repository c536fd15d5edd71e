"""What people hand over in place of a safetensors file is called what it is, with the step that helps."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import mlx.core as mx
import numpy as np
import pytest

from benchmarks.harness import fileformat, header
from benchmarks.harness.header import BadFile

HTML = b"<!DOCTYPE html>\n<html><body>404 not found</body></html>"


def archive(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr(name, b"\x93NUMPY")
    return data.getvalue()


def saved(save, *arrays) -> bytes:
    data = io.BytesIO()
    save(data, *arrays)
    return data.getvalue()


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        made.addfile(tarfile.TarInfo("model.safetensors"))
    return data.getvalue()


WHAT = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
    "xet": (b"# xet version 0\nfilesize = 1\nhash = '0'\n", "Xet pointer"),
    "gguf": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1), "GGUF"),
    "ggml": (b"lmgg" + bytes(40), "GGML"),
    "npz": (saved(np.savez, np.zeros(3)), r"NumPy \.npz"),
    "npz, packed": (saved(np.savez_compressed, np.zeros(3)), r"NumPy \.npz"),
    "npy": (saved(np.save, np.zeros(3)), r"NumPy \.npy"),
    "torch": (archive("archive/data.pkl"), "PyTorch"),
    "zip": (archive("config"), "zip archive"),
    "empty zip": (b"PK\5\6" + bytes(18), "zip archive"),
    "pickle": (pickle.dumps({"w": 1}, 2), "pickle, as old PyTorch"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite"),
    "gzip": (gzip.compress(b"model"), "compressed.*unpack"),
    "tar": (tar(), "archive; unpack"),
    "apple": (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS keeps"),
    "page": (HTML, "web page"),
    "page in capitals": (b"\xef\xbb\xbf \n<HTML><HEAD>", "web page"),
    "denied": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
    "json": (json.dumps({"error": "you need to log in"}).encode(), "JSON"),
    "short json": (b"{}", "JSON"),
    "brief": (b'{"meta":{"of": "an index", "length": 8}}', "JSON"),
    "list": (b'[\n  {"a": 1}]', "JSON"),
    "text": (b"Invalid username or password.", "text"),
    "a link in Windows": (b"../../blobs/0123456789abcdef", "text"),
    "cyrillic": ("слово ".encode() * 100, "text"),
    "zeros": (bytes(4096), "zeros.*get it anew"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("name", WHAT)
def test_a_file_of_another_format_is_called_what_it_is(tmp_path, name):
    data, told = WHAT[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=f"model.safetensors: no safetensors file: it is .*{told}") as refused:
        header.read(path)
    assert str(refused.value).isprintable()


def test_a_file_that_mlx_writes_in_another_format_is_called_what_it_is(tmp_path):
    arrays = {"w": mx.zeros((4, 4))}
    mx.savez(str(tmp_path / "weights.npz"), **arrays)
    mx.save_gguf(str(tmp_path / "weights.gguf"), arrays)
    mx.save(str(tmp_path / "weights.npy"), arrays["w"])
    for name, told in (("weights.npz", r"NumPy \.npz"), ("weights.gguf", "GGUF"), ("weights.npy", r"NumPy \.npy")):
        with pytest.raises(BadFile, match=told):
            header.read(tmp_path / name)


@pytest.mark.parametrize("length", [0x0280, 0x4B50, 0x8B1F, 0x3C, 0x7B, 0x5A42, 2, 0])
def test_a_safetensors_file_is_one_whatever_the_length_of_its_header_looks_like(tmp_path, length):
    """A length's bytes are those of a pickle, a zip, gzip, "<", "{", bz2."""
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    text = head + b" " * (length - len(head)) if length > len(head) else b"{}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + (bytes(4) if text != b"{}" else b""))
    assert [tensor.name for tensor in header.read(path)] == (["w"] if text != b"{}" else [])


def test_bytes_of_no_known_format_are_none():
    assert fileformat.told(b"\x01\x02\x03\x04 what is it") is None
