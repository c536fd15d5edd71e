"""What NVIDIA's profiler told of a step's kernels: no figure where it told none."""

import pytest
from meters import LOG

from benchmarks.harness import ncu


def test_the_kernels_of_a_step_are_summed():
    (found,) = ncu.per_case(ncu.kernels(LOG), ["kernel/float32/one_leaf"])
    assert found["case"] == "kernel/float32/one_leaf"
    assert (found["read"], found["written"]) == (268_446_976 + 1024, 199_881_472)
    assert found["nanoseconds"] == 129_344
    assert (found["kernels"], found["registers"], found["occupancy"]) == (2, 56, None)


def test_what_a_card_does_not_tell_is_no_zero():
    (found,) = ncu.per_case(ncu.kernels(LOG.replace('"268,446,976"', '"n/a"')), ["a"])
    assert found["read"] is None
    assert found["written"] == 199_881_472


def test_cases_follow_each_other_and_a_log_that_was_cut_short_has_fewer():
    again = LOG.splitlines()
    twice = "\n".join(again + [line.replace('"0",', '"3",').replace('"1",', '"4",') for line in again[3:8]])
    found = list(ncu.per_case(ncu.kernels(twice), ["a", "b", "c"]))
    assert [one["case"] for one in found] == ["a", "b"]
    assert found[1]["kernels"] == 1
    assert list(ncu.per_case([], ["a"])) == []
    assert list(ncu.per_case([{"name": "before any case"}], ["a"])) == []
    (empty,) = ncu.per_case(ncu.kernels("\n".join(again[:4])), ["a"])
    assert (empty["kernels"], empty["read"], empty["registers"]) == (0, None, None)


@pytest.mark.parametrize("text", ["", "==PROF== nothing", '"ID","Kernel Name"\n"0","x"\n', '"a', '"x"\n"1"'])
def test_logs_of_any_kind(text):
    assert all(one["read"] is None for one in ncu.kernels(text))


def test_a_refusal_is_its_own_word():
    text = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
    assert ncu.refusal(text) == text.removeprefix("==ERROR== ")
    assert ncu.refusal(LOG) is None


def test_its_command_leaves_clocks_and_caches_alone(monkeypatch):
    monkeypatch.setattr(ncu.shutil, "which", lambda name: None)
    assert ncu.command("x") is None
    monkeypatch.setattr(ncu.shutil, "which", lambda name: f"/bin/{name}")
    words = ncu.command("x")
    assert words
    assert words[words.index("--clock-control") + 1] == words[words.index("--cache-control") + 1] == "none"
