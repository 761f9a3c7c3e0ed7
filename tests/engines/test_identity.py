"""Model identity: changes when answers may change, and reads weights once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tagllm_cli.engines.identity import default_cache_dir, model_identity, served_identity
from tagllm_cli.errors import ModelError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    (folder / "adapter").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "processor_config.json"):
        (folder / name).write_text(f"content of {name}")
    (folder / "adapter" / "adapter.safetensors").write_text("adapter")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is read."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, method: Any) -> Any:
        names.append(Path(file.name).name)
        return digest(file, method)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


def digest(model: Path | str, cache: Path, **engine_args: str) -> bytes:
    return model_identity(str(model), engine_args, cache_dir=cache).digest


def test_a_name_for_people_and_sixteen_bytes(model: Path, cache: Path):
    identity = model_identity(str(model), {}, cache_dir=cache)
    assert identity.name == "my-model"
    assert len(identity.digest) == 16


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "adapter/adapter.safetensors",
        "new.py",
    ],
)
def test_what_decides_answers_changes_the_identity(model: Path, cache: Path, name: str):
    before = digest(model, cache)
    (model / name).write_text("other content")
    assert digest(model, cache) != before


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE", ".gitattributes", ".git/config", "original/w.pth", "logo.png"]
)
def test_what_does_not_decide_answers_leaves_it(model: Path, cache: Path, name: str):
    before = digest(model, cache)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("words")
    assert digest(model, cache) == before


def test_a_files_name_counts_and_the_folders_does_not(model: Path, cache: Path):
    before = digest(model, cache)
    moved = model.rename(model.with_name("elsewhere"))
    assert digest(moved, cache) == before
    (moved / "tokenizer.json").rename(moved / "vocab.json")
    assert digest(moved, cache) != before


@pytest.mark.parametrize(
    ("engine_args", "same"),
    [
        ({"dtype": "float16"}, False),
        ({"quantization": "fp8"}, False),
        ({"mm_processor_kwargs": '{"max_pixels": 1000}'}, False),
        ({"load_format": "dummy"}, False),
        ({"dtype": "auto"}, True),
        ({"mm-processor-kwargs": "{}"}, True),
        ({"max_num_seqs": "8", "gpu_memory_utilization": "0.5", "tensor_parallel_size": "2"}, True),
    ],
)
def test_engine_arguments_count_where_they_decide_answers(
    model: Path, cache: Path, engine_args: dict[str, str], same: bool
):
    assert (digest(model, cache, **engine_args) == digest(model, cache)) is same


def test_the_spelling_of_an_argument_does_not_count(model: Path, cache: Path):
    one = digest(model, cache, **{"mm-processor-kwargs": '{"b": 1, "a": 2}'})
    assert one == digest(model, cache, mm_processor_kwargs="{a: 2, b: 1}")


def test_a_second_run_reads_no_file(model: Path, cache: Path, reads: list[str]):
    before = digest(model, cache)
    assert len(reads) == 6
    assert digest(model, cache) == before
    assert len(reads) == 6


def test_only_a_changed_file_is_read_again(model: Path, cache: Path, reads: list[str]):
    before = digest(model, cache)
    os.utime(model / "config.json", ns=(1, 1))
    assert digest(model, cache) == before
    assert reads[6:] == ["config.json"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}', '{"x": [1, 2]}'])
def test_a_damaged_cache_counts_as_none(model: Path, cache: Path, reads: list[str], damage: str):
    before = digest(model, cache)
    (cache / "models.json").write_text(damage)
    assert digest(model, cache) == before
    assert len(reads) == 12
    assert digest(model, cache) == before
    assert len(reads) == 12


def test_a_cache_that_cannot_be_written_is_no_error(model: Path, cache: Path):
    cache.write_text("a file where the folder should be")
    assert digest(model, cache) == digest(model, cache.with_name("other"))


def test_files_that_are_gone_are_forgotten(model: Path, cache: Path):
    digest(model, cache)
    (model / "tokenizer.json").unlink()
    (model / "config.json").write_text("other")
    digest(model, cache)
    known = json.loads((cache / "models.json").read_text())
    assert len(known) == 5
    assert not any(path.endswith("tokenizer.json") for path in known)
    assert [path.name for path in cache.iterdir()] == ["models.json"]


def test_the_users_own_name_reads_nothing_and_meets_a_server_of_that_name(model: Path, cache: Path, reads: list[str]):
    identity = model_identity(str(model), {"dtype": "float16"}, model_id="mine-7", cache_dir=cache)
    assert identity == served_identity("mine-7")
    assert identity != served_identity("mine-8")
    assert reads == []


def test_variables_of_the_chat_template_make_another_model(model: Path, cache: Path):
    def of(**variables: object) -> bytes:
        return model_identity(str(model), {}, chat_template_kwargs=variables, cache_dir=cache).digest

    assert of() == digest(model, cache)
    assert len({of(), of(thinking=False), of(thinking=True), of(thinking=True, language="en")}) == 4
    assert served_identity("mine", {}) == served_identity("mine")
    assert served_identity("mine", {"thinking": True}) != served_identity("mine")


def test_a_url_needs_a_name(cache: Path):
    with pytest.raises(ModelError) as caught:
        digest("s3://bucket/model", cache)
    assert "--model-id" in caught.value.hint


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "tagllm"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_cache_dir() == Path.home() / ".cache" / "tagllm"


def hub_cache(root: Path, commit: str) -> dict[str, str]:
    """A download folder with one commit of org/model, and the engine argument that names it."""
    folder = root / "models--org--model"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return {"download_dir": str(root)}


def test_a_hub_model_is_its_commit_on_this_machine(tmp_path: Path, cache: Path, reads: list[str]):
    engine_args = hub_cache(tmp_path / "hub", "a" * 40)
    identity = model_identity("org/model", engine_args, cache_dir=cache)
    assert identity.name == "org/model"
    assert identity.digest == digest("org/model", cache, revision="a" * 40)
    assert identity.digest != digest("org/model", cache, revision="b" * 40)
    hub_cache(tmp_path / "hub", "b" * 40)
    assert digest("org/model", cache, **engine_args) == digest("org/model", cache, revision="b" * 40)
    assert reads == []


def test_an_unknown_hub_model_without_a_network_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"org/model is not a folder here and not .*downloaded") as caught:
        digest("org/model", cache, download_dir=str(tmp_path))
    assert "hf download" in caught.value.hint


@pytest.mark.parametrize("name", ["./missing", "/missing", "a/b/c", "no model", "-x/y"])
def test_a_path_that_leads_nowhere_is_told(cache: Path, name: str):
    with pytest.raises(ModelError, match="no model at"):
        digest(name, cache)
