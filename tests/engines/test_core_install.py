"""A core install, without huggingface_hub, vllm and torch: a name of the hub is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagllm_cli.engines.hub import is_offline
from tagllm_cli.engines.identity import model_identity
from tagllm_cli.engines.local.model_files import check_model
from tagllm_cli.errors import ModelError
from tests.support.workspace import paint

ABSENT = ("huggingface_hub", "vllm", "torch", "transformers")


@pytest.fixture
def core_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ABSENT:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("core_only")
def test_a_hub_name_names_the_extra(tmp_path: Path):
    for refused in (lambda: model_identity("org/model", {}, cache_dir=tmp_path), lambda: check_model("org/model", {})):
        with pytest.raises(ModelError, match="org/model is not a folder here") as caught:
            refused()
        assert "pip install 'tagllm[vllm]'" in caught.value.hint
        assert "--endpoint" in caught.value.hint
    assert not is_offline()


@pytest.mark.parametrize("model", ["org/model", "folder"])
def test_the_command_ends_with_2_and_without_a_traceback(tmp_path: Path, model: str):
    (tmp_path / "images").mkdir()
    paint(tmp_path / "images" / "one.png", 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    arguments = ["tagllm", "candidates", "images", "--vocab", "coco", "--model", model, "--out", "c.parquet"]
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); sys.argv = {arguments}"
    code += "; from tagllm_cli.cli import main; main()"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TAGLLM_ENDPOINT": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "tagllm[vllm]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "c.parquet").exists()
