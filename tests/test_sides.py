"""The sides of a comparison, and the cases that both have."""

import os
import sys
from pathlib import Path

import pytest

from scripts import command, git, matching, scratch, sides


class TestSides:
    def test_a_variant_and_another_python(self, at_root):
        assert sides.resolve("variant:windowed").variant == "windowed"
        with pytest.raises(command.UserError, match="unknown variant 'no'; choose one of"):
            sides.resolve("variant:no")
        other = sides.resolve(f"python:{sys.executable}")
        assert (other.python, other.mlx) == (sys.executable, sides.resolve(".").mlx)
        with pytest.raises(command.UserError, match="no Python at '/no/such/python'"):
            sides.resolve("python:/no/such/python")

    def test_a_python_without_mlx_is_one_line(self, at_root, tmp_path):
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
        python.chmod(0o755)
        with pytest.raises(command.UserError, match=r"has no mlx: .*; install it there"):
            sides.resolve(f"python:{python}")
        python.write_text("#!/bin/sh\necho 'dyld: no such library' >&2; exit 1\n")
        with pytest.raises(command.UserError, match=r"does not say which mlx it has: dyld: no such library$"):
            sides.resolve(f"python:{python}")

    def test_code_is_what_a_variant_can_run(self, tmp_path):
        def made(name: str, **files: str) -> Path:
            package = tmp_path / name / "adamw"
            (package / "variants").mkdir(parents=True)
            for path, text in {"base": "import mlx", "variants/a": "from adamw import base", "variants/b": "",
                               "variants/c": "from adamw.variants.b import x",
                               "variants/d": "from adamw.variants import c"}.items():  # fmt: skip
                (package / f"{path}.py").write_text(files.get(path.replace("/", "_"), text))
            return tmp_path / name

        old = made("old")
        same = made("same", variants_b="changed = 1")
        assert sides.code(old, "a") == sides.code(same, "a")
        assert sides.code(old, "b") != sides.code(same, "b")
        assert sides.code(old, "c") != sides.code(same, "c")  # it imports b
        assert sides.code(old, "d") != sides.code(same, "d")  # it imports c
        assert sides.code(old, "a") != sides.code(made("base", base="import mlx  # x"), "a")
        (same / "adamw" / "kernel.metal").write_text("void")
        assert sides.code(old, "a") != sides.code(same, "a")
        broken = made("broken", variants_a="def (")
        assert sides.code(broken, "a") != sides.code(old, "a")
        assert sides.code(old, "a") != sides.code(old, "b")


class TestFolder:
    """A commit's code is all of it, whatever a kill or an error has left."""

    @pytest.fixture(autouse=True)
    def nothing_there(self, at_root, monkeypatch, tmp_path):
        monkeypatch.setattr(scratch, "ROOT", tmp_path)
        monkeypatch.setattr(scratch.atexit, "register", lambda *_, **__: None)
        monkeypatch.setattr(sides, "interpreter", lambda mlx: sys.executable)

    def test_what_a_killed_process_of_the_same_number_left_is_not_run(self, tmp_path):
        commit = git.find_commit("HEAD")
        half = tmp_path / str(os.getpid()) / commit / "adamw" / "half.py"
        half.parent.mkdir(parents=True)
        half.write_text("import nothing")
        side = sides.resolve("HEAD")
        assert side.folder == half.parent.parent
        assert not half.exists()
        assert (side.folder / "adamw" / "__init__.py").exists()
        assert sides.resolve("HEAD") == side

    def test_what_could_not_be_removed_is_an_error(self, tmp_path, monkeypatch):
        (tmp_path / str(os.getpid())).mkdir()
        monkeypatch.setattr(scratch.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(FileExistsError):
            scratch.folder()

    def test_what_an_error_left_half_done_is_done_anew(self, monkeypatch):
        real = git.extract

        def half(commit: str, paths: list[str], folder: Path) -> None:
            (folder / "adamw").mkdir(parents=True)
            raise command.UserError("cut short")

        monkeypatch.setattr(git, "extract", half)
        with pytest.raises(command.UserError, match="cut short"):
            sides.resolve("HEAD")
        monkeypatch.setattr(git, "extract", real)
        assert (sides.resolve("HEAD").folder / "adamw" / "__init__.py").exists()


class TestMatches:
    def test_cases_of_two_sides(self, at_root):
        pair = (sides.resolve("."), sides.resolve("."))
        found = matching.matches(pair, [["compiled"], ["compiled", "eager"]], "quick", "resnet50$")
        assert [(match.name, bool(match.base), bool(match.head)) for match in found] == [
            ("compiled/float32/resnet50", True, True),
            ("eager/float32/resnet50", False, True),
        ]
        assert found[0].same_code(*pair)
        assert not found[1].same_code(*pair)

    def test_workloads_of_two_variants(self, at_root):
        pair = (sides.resolve("variant:compiled"), sides.resolve("variant:stochastic"))
        found = matching.matches(pair, [[], []], "quick", None)
        assert [match.name for match in found] == ["compiled:stochastic/bfloat16/two_leaves"]
        assert not found[0].same_code(*pair)
        with pytest.raises(command.UserError, match="no case of profile quick matches 'no such'"):
            matching.matches(pair, [[], []], "quick", "no such")
        with pytest.raises(command.UserError, match="write variant:NAME on both sides"):
            matching.matches((pair[0], sides.resolve(".")), [[], []], "quick", None)
