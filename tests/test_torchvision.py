"""torchvision, as the CPU set has it: processors can use it, in every process, and nothing is slower before they do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
USES = "import torchvision.transforms.v2.functional"
CHILD = f"""
import multiprocessing
def use(): {USES}
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=use)
    process.start()
    use()
    process.join()
    assert process.exitcode == 0
"""
LOADED = f"""
import torch
library = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    library.define(operator + "{SIGNATURE}")
import torchvision
"""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_there_also_in_processes_that_a_process_starts(tmp_path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    python(str(tmp_path / "child.py"))


def test_nothing_is_imported_before_it_is() -> None:
    loaded = python("-c", "import sys; print(*sys.modules)").split()
    assert not {"torch", "torchvision", "importlib.metadata"} & set(loaded)


@pytest.mark.skipif(importlib.util.find_spec("torchvision_operators") is None, reason="not the CPU set")
def test_operators_that_are_loaded_are_left_alone() -> None:
    python("-c", LOADED)
