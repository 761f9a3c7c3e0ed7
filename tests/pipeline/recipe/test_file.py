"""Pipeline files: every key is an option of `tagllm run`; what cannot be used is refused with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tagllm_cli.cli.app import app
from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.pipeline.recipe import file as recipe_file
from tagllm_cli.pipeline.recipe.file import Recipe, load_recipe
from tagllm_cli.resources import UserModel

FULL = """\
source: photos/
source_format: folder
split: [train, test]
exclude: '*/thumbnails/*'
skip-unreadable: yes
vocab: labels.txt
model: models/vlm
engine-arg: {max_model_len: 8192, hf-overrides: '{}'}
chat-template-kwargs: '{"enable_thinking": false}'
prompts: own
max_pixels: 250_000
out: out/labels.parquet
candidates:
  strategy: binary
  arms: [cooccurring, random]
  group-size: 6
  cooccurrence: scenes.yaml
  min-votes: 2
  threshold: 0.3
labels:
  concepts: cards.yaml
  threshold: 0.7
gates:
  truth: truth.csv
  fail-under: {of1: 0.8, map: 0.5}
  image-column: file
exports:
  - {format: coco, out: labels.json}
  - {format: hf, out: dataset, root: moved, no-embed: true, threshold: 0.9}
seed: 7
max_failed_rate: 1e-1
"""


def read(folder: Path, text: str) -> Recipe:
    folder.mkdir(exist_ok=True)
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(folder, text)
    return f"{caught.value.message.removeprefix(str(folder / 'pipeline.yaml'))} -> {caught.value.hint}"


def test_every_key_becomes_an_option_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "vlm").mkdir(parents=True)
    recipe = read(tmp_path, FULL)
    assert recipe.source == f"{tmp_path}/photos/"
    assert recipe.options == {
        "source_format": "folder",
        "split": "train,test",
        "exclude": ["*/thumbnails/*"],
        "skip_unreadable": True,
        "vocab": f"{tmp_path}/labels.txt",
        "model": f"{tmp_path}/models/vlm",
        "engine_arg": ["max_model_len=8192", "hf-overrides={}"],
        "chat_template_kwargs": '{"enable_thinking": false}',
        "prompts": f"{tmp_path}/own",
        "max_pixels": 250_000,
        "out": f"{tmp_path}/out/labels.parquet",
        "strategy": "binary",
        "arms": "cooccurring,random",
        "group_size": 6,
        "cooccurrence": f"{tmp_path}/scenes.yaml",
        "min_votes": 2,
        "candidate_threshold": 0.3,
        "concepts": f"{tmp_path}/cards.yaml",
        "threshold": 0.7,
        "truth": f"{tmp_path}/truth.csv",
        "fail_under": ["of1=0.8", "map=0.5"],
        "seed": 7,
        "max_failed_rate": 0.1,
    }
    assert recipe.gates is not None
    assert (recipe.gates.truth, recipe.gates.image_column) == (f"{tmp_path}/truth.csv", "file")
    coco, hf = recipe.exports
    assert (coco.format, coco.out, coco.root) == ("coco", f"{tmp_path}/labels.json", None)
    assert (hf.out, hf.root, hf.no_embed, hf.threshold) == (f"{tmp_path}/dataset", f"{tmp_path}/moved", True, 0.9)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "s3://bucket/shards/{00..63}.tar"),
        ("vocab", "coco"),
        ("model", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("model", "~/models/vlm"),
        ("concepts", "none"),
        ("source", "/data/photos"),
    ],
)
def test_what_is_no_path_of_the_file_stays_as_it_is(tmp_path: Path, key: str, value: str) -> None:
    text = {"source": f"source: {value}", "concepts": f"source: a\nlabels: {{concepts: {value}}}"}
    recipe = read(tmp_path, text.get(key, f"source: a\n{key}: {value}"))
    assert {"source": recipe.source, **recipe.options}[key] == value


def test_a_file_in_the_working_directory_gives_the_paths_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text("source: photos/\nout: labels.parquet\n")
    recipe = load_recipe(Path("p.yaml"))
    assert (recipe.source, recipe.options) == ("photos/", {"out": "labels.parquet"})


UNUSABLE = {
    "source: a\nvocabb: coco\n": ", line 2: unknown key 'vocabb' (did you mean 'vocab'?)",
    "source: a\ncandidates:\n  grup-size: 3\n": ", line 3: `candidates`: unknown key 'grup_size' (did you mean 'group",
    "source: a\ncandidates:\n  concepts: c.yaml\n": ", line 3: `candidates`: unknown key 'concepts' (known: strategy",
    "source: a\nexports:\n- format: csv\n  out: a.csv\n- {format: coco, fil: b}\n": ", line 5: entry 2 of `exports`: `",
    "source: a\nexports:\n- {format: xml, out: b}\n": ", line 3: entry 1 of `exports`: `format` is 'xml', and none of",
    "source: a\nrapport: r.html\n": ", line 2: unknown key 'rapport'",
    "source: a\nthresholds: t.yaml\n": ", line 2: unknown key 'thresholds'",
    "source: a\nlimit: ten\n": ", line 2: `limit` is not a whole number",
    "source: a\nlimit: 0\n": ", line 2: `limit` is too small (at least 1)",
    "source: a\n\nlabels:\n  threshold: 1.5\n": ", line 4: `labels`: `threshold` is too large (at most 1)",
    "source: a\nmax_cost: -1\n": ", line 2: `max_cost` is too small (at least 0)",
    "source: a\nlabels:\n  threshold: half\n": ", line 3: `labels`: `threshold` is not a number",
    "source: a\nlabels: cards.yaml\n": ", line 2: `labels` is not a mapping",
    "source: a\nskip_unreadable: perhaps\n": ", line 2: `skip_unreadable` is neither true nor false",
    "source: a\nchat_template_kwargs: {thinking: false}\n": ", line 2: `chat_template_kwargs` is to be written as",
    "source: a\nstrategy: open\n": ", line 2: unknown key 'strategy'",
    "source: a\ncandidates: {strategy: opn}\n": ", line 2: `candidates`: `strategy` is 'opn', and none of groups, open",
    "source: a\ngates:\n  fail_under: [of1=1]\n": ", line 2: `gates`: `truth` is missing",
    "source: a\ncandidates:\n  group-size: 3\n  group_size: 4\n": ", line 2: `candidates` has 'group_size' in two",
    "vocab: coco\n": ", line 1: `source` is missing",
    "source:\n": "line 1: `source` is missing",
    "source: a\nsource: b\n": ", line 1: the key 'source' stands twice",
    "- a\n": " holds no options",
    "": " holds no options",
    "source: [a\n": ", line 2: ",
    "source: a\noffline: true\n": ", line 2: 'offline' is decided for each run -> Give it on the command line: --off",
    "source: a\ndry-run: true\n": ", line 2: 'dry-run' is decided for each run",
}


@pytest.mark.parametrize(("text", "said"), UNUSABLE.items())
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("source: a\napi-key: hunter2hunter2\n", 2),
        ("source: a\nTAGLLM_API_KEY: hunter2hunter2\n", 2),
        ("source: a\ncandidates:\n  hf_token: hunter2hunter2\n", 3),
        ("source: a\nengine_arg:\n  hf-token: hunter2hunter2\n", 3),
        ("source: a\nengine_arg: [max_model_len=9, hf_token=hunter2hunter2]\n", 2),
        ("source: a\nendpoint: http://me:hunter2hunter2@host:8000\n", 2),
        ("source: a\nendpoint: ['http://b', 'http://host/v1?key=hunter2hunter2']\n", 2),
    ],
)
def test_secrets_are_refused_and_not_repeated(tmp_path: Path, text: str, line: int) -> None:
    said = refusal(tmp_path, text)
    assert f", line {line}: " in said
    assert "a pipeline file holds none" in said
    assert "environment: TAGLLM_" in said
    assert "hunter2" not in said


def test_arguments_of_the_engine_that_only_look_like_secrets_are_taken(tmp_path: Path) -> None:
    recipe = read(tmp_path, "source: a\nengine_arg: {max_num_batched_tokens: 8192, tokenizer: t}\n")
    assert recipe.options["engine_arg"] == ["max_num_batched_tokens=8192", "tokenizer=t"]


def keys(model: type[UserModel]) -> set[str]:
    return set(model.model_fields)


def test_the_options_of_the_command_and_the_keys_of_the_file_are_the_same() -> None:
    pipeline = keys(recipe_file._Pipeline) - {"candidates", "labels", "gates", "exports", "report"}
    stages = keys(recipe_file.CandidateOptions) - {"threshold"} | keys(recipe_file.LabelOptions)
    gates = {"truth", "fail_under", "min_overlap"}
    command: Any = typer.main.get_command(app)
    options = {param.name for param in command.commands["run"].params}
    anew = {"json_output" if name == "json" else name for name in recipe_file._DECIDED_ANEW}
    typed_only = {"help", "config", "export", "replay", "record"}
    assert anew <= options
    assert pipeline | stages | gates | {"candidate_threshold"} == options - anew - typed_only


def test_an_export_of_a_file_has_the_settings_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    entry = {
        "format": "imagefolder",
        "out": "dataset",
        "labels": ["cow", "@names.txt"],
        "min-probability": 0.8,
        "unknown": "yes",
        "split": {"train": 0.9, "test": 0.1},
        "seed": 3,
        "group-by": "folder",
        "link": True,
        "shard_size": 500,
    }
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({"source": "photos", "exports": [entry]}, sort_keys=False))
    (export,) = load_recipe(path).exports
    assert export.settings() == ExportSettings(
        labels=("cow", "dog", "cat"),
        min_probability=0.8,
        unknown="yes",
        split=(("train", 0.9), ("test", 0.1)),
        seed=3,
        group_by="folder",
        images="link",
        shard_images=500,
    )
    for wrong, said in (({"split": "train=.5"}, "sum to 0.5"), ({"unknown": "perhaps"}, "none of keep, drop, yes")):
        path.write_text(yaml.safe_dump({"source": "photos", "exports": [{**entry, **wrong}]}, sort_keys=False))
        with pytest.raises(UsageError, match=said):
            load_recipe(path)


def test_the_keys_of_an_export_are_the_options_of_the_command() -> None:
    command: Any = typer.main.get_command(app)
    options = {param.name.rstrip("_") for param in command.commands["export"].params}
    common = {"table", "config", "json_output", "quiet", "verbose"}
    assert {key.rstrip("_") for key in keys(recipe_file.Export)} == options - common
    told = dict.fromkeys(("copy", "link", "reference", "no_embed"), "images")
    told |= {"option": "format_options", "include_unknown": "unknown"}
    settings: Mapping[str, Any] = ExportSettings.__dataclass_fields__
    mapped = {told.get(name, name) for name in options - common - {"format", "out"}}
    assert mapped - {"shard_size"} == settings.keys() - {"only", "shard_images", "shard_bytes"}
