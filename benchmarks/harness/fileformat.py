"""The format of a file that is no safetensors file, told by its first bytes, with the next step."""

import re

FIRST = 512
"""Bytes that are looked at."""

OTHERS = "name the model's safetensors files, or convert it to that format"

FORMATS = [
    (re.compile(pattern, re.DOTALL), told)
    for pattern, told in (
        (rb"\s*version https://\S+/spec/v\d", "a Git LFS pointer, in place of the file; fetch that with: git lfs pull"),
        (rb"# xet version", "a Xet pointer, in place of the file; fetch that with: git xet pull"),
        (rb"GGUF|FUGG", f"a GGUF file, as llama.cpp has them; {OTHERS}"),
        (rb"lmgg|tjgg|fmgg|algg", f"a GGML file, as old llama.cpp had them; {OTHERS}"),
        (rb"PK\x03\x04.{26}[^\x00]{0,200}?\.npy", f"a NumPy .npz (a zip); {OTHERS}"),
        (rb"PK\x03\x04.{26}[^\x00]{0,200}?/(data\.pkl|version|byteorder)", f"a PyTorch file (a zip); {OTHERS}"),
        (rb"PK[\x03\x05]", f"a zip archive, as PyTorch, NumPy's .npz and Keras use; {OTHERS}"),
        (rb"\x93NUMPY", f"a NumPy .npy; {OTHERS}"),
        (rb"\x80[\x02-\x05]", f"a Python pickle, as old PyTorch files are; {OTHERS}"),
        (rb"\x89HDF\r\n", f"an HDF5 file, as Keras has them; {OTHERS}"),
        (rb".{4}TFL3", f"a TensorFlow Lite file; {OTHERS}"),
        (rb"\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|.{257}ustar", "compressed or an archive; unpack it"),
        (rb"\x00\x05\x16\x07", "what macOS keeps beside a file (AppleDouble); name the file without the leading ._"),
        (
            rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)",
            "a web page (HTML or XML), as errors and logins are; get the file itself",
        ),
        (rb"(\xef\xbb\xbf)?\s*[\[{]\s*[\"\]}{\[]", "JSON text without tensors; name the model's folder or files"),
        (rb"\x00+\Z", "nothing but zeros where it begins, as a download that was broken off; get it anew"),
    )
]


def told(begin: bytes) -> str | None:
    """What a file that begins so is, and what to do; None if it is not known."""
    if not begin:
        return "an empty file; get it anew"
    for pattern, what in FORMATS:
        if pattern.match(begin.lower() if b"<" in pattern.pattern else begin):
            return what
    if is_text(begin):
        return "text, without tensors; name the model's safetensors files"
    return None


def is_text(begin: bytes) -> bool:
    """Whether these are characters only; the last one may have been cut."""
    characters = begin.decode("utf-8", errors="ignore")
    whole = len(characters.encode()) >= len(begin) - 3
    return whole and len(begin) > 3 and all(one.isprintable() or one.isspace() for one in characters)
