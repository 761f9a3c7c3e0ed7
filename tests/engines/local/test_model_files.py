"""Checks of a model before vLLM is imported: missing, unfinished, not a model, not supported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from tagllm_cli.engines.local import arguments, model_files
from tagllm_cli.engines.local.arguments import check_engine_args, parse_engine_args
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.engines.local.errors import explain, message_of
from tagllm_cli.engines.local.memory import GIB, cpu_cache_bytes, free_memory
from tagllm_cli.engines.local.model_files import check_folder, check_model, weight_bytes
from tagllm_cli.errors import ModelError
from tests.families.registry import built


def safetensors(path: Path, size: int = 64) -> None:
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


@pytest.fixture(autouse=True)
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of a vLLM that knows one architecture and a few arguments."""
    folder = tmp_path / "vllm"
    (folder / "model_executor" / "models").mkdir(parents=True)
    (folder / "model_executor" / "models" / "registry.py").write_text(
        'M = {"KnownForConditionalGeneration": ("a", "b")}'
    )
    (folder / "engine").mkdir()
    fields = "\n".join(f"    {name}: int = 1" for name in ("model", "max_model_len", "max_num_seqs", "dtype", "seed"))
    source = f"class EngineArgs:\n{fields}\nclass AsyncEngineArgs(EngineArgs):\n    enable_log_requests: bool = False\n"
    (folder / "engine" / "arg_utils.py").write_text(source)
    monkeypatch.setattr(model_files, "vllm_folder", lambda: folder)
    monkeypatch.setattr(arguments, "vllm_folder", lambda: folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["KnownForConditionalGeneration"]}')
    (folder / "tokenizer.json").write_text("{}")
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    safetensors(folder / "model-1-of-2.safetensors")
    safetensors(folder / "model-2-of-2.safetensors")
    return folder


def refusal(model: Path | str, **parsed: Any) -> str:
    with pytest.raises(ModelError) as caught:
        check_model(str(model), parsed)
    assert caught.value.hint
    return caught.value.message


def test_a_complete_model_passes(model: Path):
    check_model(str(model), {})


def test_a_missing_weight_file_is_an_unfinished_download(model: Path):
    (model / "model-2-of-2.safetensors").unlink()
    assert "unfinished download: model-2-of-2.safetensors missing" in refusal(model)
    check_model(str(model), {"load_format": "dummy"})


@pytest.mark.parametrize("name", ["x.incomplete", ".cache/huggingface/download/tokenizer.json.abc.incomplete"])
def test_a_partial_file_is_an_unfinished_download(model: Path, name: str):
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text("")
    assert "unfinished download" in refusal(model)


def test_weights_cut_short_are_told(model: Path):
    path = model / "model-1-of-2.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "model-1-of-2.safetensors is truncated" in refusal(model)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 100, b"\x04" + b"\0" * 7 + b"[1]\n"])
def test_damaged_weights_are_told(model: Path, content: bytes):
    (model / "model-1-of-2.safetensors").write_bytes(content)
    assert "model-1-of-2.safetensors is truncated or damaged" in refusal(model)


def test_a_git_lfs_pointer_is_told(model: Path):
    (model / "model-1-of-2.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    assert "Git LFS pointer" in refusal(model)


def test_a_folder_without_weights_tokenizer_or_configuration_is_told(model: Path):
    for path in model.glob("model*"):
        path.unlink()
    assert "has no weights" in refusal(model)
    (model / "tokenizer.json").unlink()
    assert "has no tokenizer" in refusal(model)
    (model / "config.json").unlink()
    assert "is not a model: it has no config.json" in refusal(model)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_configuration_is_told(model: Path, content: str):
    (model / "config.json").write_text(content)
    assert "config.json" in refusal(model)


def test_a_package_that_the_processor_needs_is_told(model: Path, monkeypatch: pytest.MonkeyPatch):
    smolvlm = built("smolvlm2")
    check_folder(smolvlm, {"load_format": "dummy"})
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "num2words" else find(name))
    with pytest.raises(ModelError, match="needs the package num2words, which is not installed") as caught:
        check_folder(smolvlm, {"load_format": "dummy"})
    assert caught.value.hint == "Run pip install num2words."
    check_folder(built("idefics3"), {"load_format": "dummy"})


def test_an_unknown_architecture_is_told(model: Path):
    (model / "config.json").write_text('{"architectures": ["FooForBar"]}')
    assert "does not support FooForBar" in refusal(model)
    (model / "config.json").write_text('{"architectures": ["FooForBar"], "auto_map": {"AutoModel": "foo.Foo"}}')
    check_model(str(model), {})


def test_a_file_is_not_a_model_unless_it_is_gguf(tmp_path: Path):
    (tmp_path / "photo.jpg").write_text("")
    (tmp_path / "model.gguf").write_text("")
    assert "is a file, not a model" in refusal(tmp_path / "photo.jpg")
    check_model(str(tmp_path / "model.gguf"), {})


def test_a_url_is_left_to_vllm():
    check_model("s3://bucket/model", {})


def hub(root: Path, *names: str) -> dict[str, str]:
    folder = root / "models--org--model"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text('{"architectures": ["KnownForConditionalGeneration"]}')
    for name in names:
        safetensors(snapshot / name)
    return {"download_dir": str(root)}


def test_a_downloaded_hub_model_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    parsed = hub(tmp_path / "hub", "tokenizer.json", "model.safetensors")
    check_model("org/model", parsed)
    assert weight_bytes("org/model", parsed) > 64


def test_an_unfinished_hub_model_is_told_only_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parsed = hub(tmp_path / "hub", "tokenizer.json")
    asked: list[str] = []

    def info(self: HfApi, name: str, **options: Any) -> Any:
        asked.append(name)
        return type("Info", (), {"sha": "b" * 40})

    monkeypatch.setattr(HfApi, "model_info", info)
    check_model("org/model", parsed)
    check_model("org/other", parsed)
    assert asked == ["org/model", "org/other"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "has no weights" in refusal("org/model", **parsed)
    assert "the hub cannot be reached" in refusal("org/other", **parsed)


def test_weights_are_weighed(model: Path, tmp_path: Path):
    assert weight_bytes(str(model), {}) == sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert weight_bytes("s3://bucket/model", {}) == 0


def test_engine_arguments_are_read_as_json_or_yaml():
    parsed = parse_engine_args(
        {"--max-num-seqs": "8", "dtype": "float16", "x": "1e-3", "flag": "true", "empty": "", "mm": "{a: [1, 2]}"}
    )
    assert parsed == {
        "max_num_seqs": 8, "dtype": "float16", "x": 0.001, "flag": True, "empty": None, "mm": {"a": [1, 2]}
    }  # fmt: skip
    with pytest.raises(ModelError, match="--engine-arg mm: cannot read the value"):
        parse_engine_args({"mm": "{a: ["})


def test_an_unknown_engine_argument_is_told_with_close_ones():
    check_engine_args({"max_num_seqs": 8, "enable_log_requests": True})
    with pytest.raises(ModelError, match="no such argument") as caught:
        check_engine_args({"max_num_seq": 8})
    assert "max_num_seqs" in caught.value.hint
    with pytest.raises(ModelError, match="has its own option") as caught:
        check_engine_args({"model": "x"})
    assert "--model" in caught.value.hint


def test_the_context_length_is_an_engine_argument_like_any_other():
    check_engine_args(parse_engine_args({"max-model-len": "8192"}))
    engine = InProcessEngine(EngineSettings("m", {"max_model_len": "8192"}))
    assert parse_engine_args(engine.settings.engine_args) == {"max_model_len": 8192}


def test_without_vllm_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="vLLM is not installed") as caught:
        check_engine_args({})
    assert "--endpoint" in caught.value.hint


@pytest.mark.parametrize(
    ("free", "weights", "cache"),
    [(64 * GIB, 0, 4 * GIB), (9 * GIB, 2 * GIB, 2 * GIB), (4 * GIB, 8 * GIB, GIB // 2), (0, 0, GIB // 2)],
)
def test_the_cache_leaves_room_for_the_rest(free: int, weights: int, cache: int):
    assert cpu_cache_bytes(weights, free) == cache


def test_free_memory_heeds_the_container(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:    50 kB\n")
    assert free_memory(tmp_path, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(tmp_path, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("11000\n")
    assert free_memory(tmp_path, tmp_path) == 10_000
    assert free_memory(tmp_path / "none", tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            ValueError(
                "1 validation error for ModelConfig\ndtype.literal['a','b']\n  Value error, No.\n [type=value_error]"
            ),
            "m: dtype: No.",
            "log",
        ),
        (RuntimeError("CUDA out of memory.\nTried to allocate"), "CUDA out of memory. Tried", "max_model_len"),
        (ValueError("Model architectures ['X'] are not supported for now."), "are not supported", "release"),
        (KeyError(), "m: KeyError", "log"),
    ],
)
def test_vllms_errors_become_one_line(error: Exception, message: str, hint: str):
    ours = explain(error, "m", Path("vllm.log"))
    assert isinstance(ours, ModelError)
    assert message in ours.message
    assert hint in ours.hint
    assert "\n" not in ours.message + ours.hint


def test_a_missing_torchvision_is_told(monkeypatch: pytest.MonkeyPatch):
    error = ValueError("Model architectures ['Qwen2_5_VLForConditionalGeneration'] failed to be inspected.")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs torchvision" in str(explain(error, "m", None))
    other = explain(RuntimeError("operator torchvision::nms does not exist"), "m", None)
    assert "belongs to another build of torch" in str(other)


def test_the_cause_of_a_dead_engine_core_is_in_the_log(tmp_path: Path):
    failed = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    log = tmp_path / "vllm.log"
    assert "Engine core initialization failed" in str(explain(failed, "m", log))
    lines = [
        "(Worker pid=2) ERROR 01-01 [x.py:1] ValueError: Bad block size.",
        "(EngineCore pid=1) ERROR [y.py:1] RuntimeError: Worker failed with error 'Bad block size.', please check",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    log.write_text("\n".join(lines))
    assert str(explain(failed, "m", log)) == "vLLM cannot load m: Bad block size."
    log.write_text("(EngineCore pid=1) ERROR 01-01 [core.py:1] torch.OutOfMemoryError: CUDA out of memory.\n")
    assert str(explain(failed, "m", log)) == "vLLM cannot load m: OutOfMemoryError: CUDA out of memory."


def test_ours_stay_ours_and_long_lines_end():
    error = ModelError("mine")
    assert explain(error, "m", None) is error
    assert len(message_of(ValueError("x" * 1000))) == 300
