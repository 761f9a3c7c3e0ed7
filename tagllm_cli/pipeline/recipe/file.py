"""The pipeline file of `tagllm run`: what is labeled, how, and what is done with the labels, in YAML.

    source: photos/                  # paths are relative to this file
    vocab: coco
    model: Qwen/Qwen2.5-VL-7B-Instruct
    out: labels.parquet
    candidates: {group_size: 12}     # the options of `tagllm candidates`
    labels: {concepts: cards.yaml}   # the options of `tagllm disambiguate`
    gates: {truth: truth.csv, fail_under: {of1: 0.8}}
    exports:
      - {format: coco, out: labels.json}
    report: report.html              # as `tagllm report` writes it, with the truth of the gates

Keys are spelled as the options. What is decided anew for each run (`--offline`, `--replan`) and API keys have no place
in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tagllm_cli.engines.http.address import parse_address
from tagllm_cli.errors import EndpointError, UsageError, VocabularyError
from tagllm_cli.export.options import parse_options
from tagllm_cli.export.registry import FORMATS
from tagllm_cli.export.settings import UNKNOWNS, ExportSettings, chosen_images, chosen_unknown, label_names, shard_size
from tagllm_cli.export.splits import parse_shares
from tagllm_cli.labeling.strategies import STRATEGIES
from tagllm_cli.resources import Lines, UserModel, in_one_line, read_text, read_yaml, validated
from tagllm_cli.sources.kinds import KIND_NAMES
from tagllm_cli.vocabulary.load import builtin_vocabularies

ENDINGS = (".yaml", ".yml")  # of pipeline files; no source has them
_HINT = "Keys and values are those of the options that `tagllm run --help` lists."
# Not `max_num_batched_tokens`.
_SECRET = re.compile(r"(?i)(^|_)(api_?keys?|key|token|secrets?|passwords?|passwd)$")
_DECIDED_ANEW = frozenset(
    [
        "dry_run",
        "estimate",
        "offline",
        "missing",
        "replan",
        "allow_gone",
        "no_preflight",
        "shard",
        "json",
        "quiet",
        "verbose",
    ]
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def _one_of(names: Sequence[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"is {value!r}, and none of {', '.join(names)}")
        return value

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _paired(value: Any) -> Any:
    """Turn `{of1: 0.9}` into `["of1=0.9"]`, as it is typed."""
    if isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair):
        return [f"{key}={each}" for key, each in value.items()]
    return _listed(value)


def _shares(value: Any) -> Any:
    """Turn `{train: 0.9, test: 0.1}`, and what is typed on the command line, into pairs of a name and a share."""
    if isinstance(value, dict):
        value = ",".join(f"{name}={share}" for name, share in value.items())
    if isinstance(value, str):
        try:
            return parse_shares(value)
        except UsageError as error:
            raise ValueError(f"cannot be used: {error.message}") from error
    return value


def _typed_json(value: Any) -> Any:
    if isinstance(value, dict):
        raise ValueError("""is to be written as it is typed, in quotes: '{"enable_thinking": false}'""")
    return value


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
Pairs = Annotated[tuple[Text, ...], BeforeValidator(_paired)]
Shares = Annotated[tuple[tuple[str, float], ...], BeforeValidator(_shares)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
NumberOrText = Annotated[Text, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


def parameter(key: str) -> str:
    """Return an option's name as a key of the models: `--group-size` and `group-size` are `group_size`."""
    return key.removeprefix("--").replace("-", "_")


class _Part(UserModel):
    @model_validator(mode="before")
    @classmethod
    def _as_parameters(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = [parameter(key) if isinstance(key, str) else key for key in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"has {twice!r} in two spellings")
        return dict(zip(names, value.values(), strict=True))

    def given(self) -> dict[str, Any]:
        """Return the options that the file sets here, by name; repeatable ones as lists, without the parts below."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if not isinstance(value, (UserModel, list))
        }


class CandidateOptions(_Part):
    """What `tagllm candidates` alone has; `threshold` is that of the strategy `binary`."""

    strategy: Annotated[Text | None, _one_of(tuple(STRATEGIES))] = None
    arms: Texts = ()
    group_size: Count | None = None
    cooccurrence: Text | None = None
    min_votes: Count = 1
    threshold: Share = 0.5


class LabelOptions(_Part):
    """What `tagllm disambiguate` alone has."""

    concepts: Text | None = None
    thresholds: Text | None = None
    threshold: Share = 0.5
    min_mass: Share = 0.5


class Gates(_Part):
    """What the label table is measured against, as `tagllm evaluate` does; without `fail_under` nothing can be missed.

    The columns and the separator are those of the truth file.
    """

    truth: Text
    fail_under: Pairs = ()
    min_overlap: Share = 0.9
    include_human: bool = False
    image_column: Text | None = None
    label_column: Text | None = None
    separator: Text | None = None


class Export(_Part):
    """One export of the label table, with the options of `tagllm export`."""

    format: Annotated[Text, _one_of(tuple(FORMATS))]
    out: Text
    root: Text | None = None
    labels: Texts = ()
    threshold: Share | None = None
    thresholds: Text | None = None
    min_probability: Share | None = None
    unknown: Annotated[Text | None, _one_of(UNKNOWNS)] = None
    include_unknown: bool = False
    split: Shares = ()
    seed: Annotated[int, Field(ge=0)] = 0
    group_by: Text | None = None
    copy_: Annotated[bool, Field(alias="copy")] = False
    link: bool = False
    reference: bool = False
    no_embed: bool = False
    option: Texts = ()
    shard_size: NumberOrText | None = None

    def settings(self) -> ExportSettings:
        """Return what the export takes of the table. Raises UsageError for what cannot be read or does not fit."""
        images, size = shard_size(self.shard_size)
        return ExportSettings(
            self.root,
            self.threshold,
            None if self.thresholds is None else Path(self.thresholds),
            labels=label_names(self.labels),
            min_probability=self.min_probability,
            unknown=chosen_unknown(self.unknown, include_unknown=self.include_unknown),
            split=self.split,
            seed=self.seed,
            group_by=self.group_by,
            images=chosen_images(copy=self.copy_, link=self.link, reference=self.reference, no_embed=self.no_embed),
            format_options=parse_options(self.option),
            shard_images=images,
            shard_bytes=size,
        )


class _Pipeline(_Part):
    source: Text
    source_format: Annotated[Text | None, _one_of(KIND_NAMES)] = None
    split: Texts = ()
    image_column: Text | None = None
    id_column: Text | None = None
    exclude: Texts = ()
    skip_unreadable: bool = False
    changed_by: Annotated[Text, _one_of(("stat", "hash"))] = "stat"
    vocab: Text | None = None
    model: Text | None = None
    endpoint: Texts = ()
    model_id: Text | None = None
    engine_arg: Pairs = ()
    gpus: NumberOrText | None = None
    chat_template_kwargs: Annotated[Text | None, BeforeValidator(_typed_json)] = None
    concurrency: Count | None = None
    timeout: Annotated[float, Field(ge=1)] | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    prompts: Text | None = None
    max_pixels: Count | None = None
    out: Text | None = None
    candidates: CandidateOptions = CandidateOptions()
    labels: LabelOptions = LabelOptions()
    gates: Gates | None = None
    exports: list[Export] = Field(default_factory=list)
    report: Text | None = None
    limit: Count | None = None
    sample: Count | None = None
    seed: int = 0
    max_failed_rate: Share = 0.05
    ray: Text | None = None
    ray_workers: Count | None = None
    gpu_price: Amount | None = None
    price_in: Amount | None = None
    price_out: Amount | None = None
    max_seconds: Amount | None = None
    max_requests: Annotated[int, Field(ge=0)] | None = None
    max_cost: Amount | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pipeline file that was read. `options` are those of `tagllm run` that it sets, by parameter name, with paths
    relative to the working directory; `gates` and `exports` hold what has no option, too. `report` is an HTML page.
    """

    path: Path
    source: str
    options: Mapping[str, Any]
    gates: Gates | None
    exports: Sequence[Export]
    report: str | None = None


def is_recipe(source: str) -> bool:
    """Tell whether what was given for SOURCE names a pipeline file.

    >>> is_recipe("pipeline.yaml"), is_recipe("https://host/images.csv")
    (True, False)
    """
    return source.lower().endswith(ENDINGS) and not _URL.match(source)


def load_recipe(path: Path) -> Recipe:
    """Return what a pipeline file says. Raises UsageError with the lines of what cannot be used, secrets among it."""
    try:
        text, content = read_text(path), read_yaml(path)
    except VocabularyError as error:
        raise UsageError(error.message, error.hint) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no options", "Give a YAML file of `option: value` lines, `source:` among them.")
    lines = Lines(text, parameter)
    for place, problem, hint in _misplaced(content):
        raise UsageError(f"{path}, {lines.of(place)}{problem}", hint)
    found, problems = validated(_Pipeline, content, where=lines.of)
    if found is None:
        raise UsageError(f"{path}, {in_one_line(problems)}", _HINT)
    return _located(found, path)


def _misplaced(content: Mapping[Any, Any], above: Sequence[str] = ()) -> Iterator[tuple[Sequence[str], str, str]]:
    """Yield path, problem and advice for secrets, and for what is decided for one run. No value is shown."""
    for key, value in content.items():
        name = parameter(str(key))
        place = (*above, name)
        words = [each.partition("=")[0] for each in value] if isinstance(value, list) and name == "engine_arg" else []
        if _SECRET.search(name) or any(_SECRET.search(parameter(word)) for word in words if isinstance(word, str)):
            yield (
                place,
                f"{str(key)!r} is a secret, and a pipeline file holds none",
                "Put API keys into the environment: TAGLLM_API_KEY, HF_TOKEN.",
            )
        elif name in _DECIDED_ANEW and not above:
            yield (
                place,
                f"{str(key)!r} is decided for each run",
                f"Give it on the command line: --{name.replace('_', '-')}.",
            )
        elif name == "endpoint" and any(_has_secret(each) for each in _listed(value) or () if isinstance(each, str)):
            yield (
                place,
                "the address holds a password or a key, and a pipeline file holds none",
                "Put the address into the environment: TAGLLM_ENDPOINT.",
            )
        elif isinstance(value, dict):
            yield from _misplaced(value, place)


def _has_secret(address: str) -> bool:
    try:
        return bool(parse_address(address).secrets)
    except EndpointError:
        return False  # explained when it is used


def _located(found: _Pipeline, path: Path) -> Recipe:
    """Return the recipe with all paths relative to the working directory instead of the file."""
    folder = path.parent

    def at(value: str) -> str:
        return value if _URL.match(value) or folder == Path() else os.path.join(folder, value)

    options = found.given()
    source, page = at(options.pop("source")), options.pop("report", None)
    candidates, labels = found.candidates.given(), found.labels.given()
    if "threshold" in candidates:
        candidates["candidate_threshold"] = candidates.pop("threshold")
    options |= {**candidates, **labels}
    for name in ("out", "prompts", "cooccurrence", "thresholds"):
        if options.get(name):
            options[name] = at(options[name])
    if options.get("vocab") not in (None, *builtin_vocabularies()):
        options["vocab"] = at(options["vocab"])
    if options.get("concepts") not in (None, "none"):
        options["concepts"] = at(options["concepts"])
    if "model" in options and _is_folder(options["model"], at(options["model"])):
        options["model"] = at(options["model"])
    for name in ("split", "arms"):
        if name in options:
            options[name] = ",".join(options[name])
    gates = found.gates and found.gates.model_copy(update={"truth": at(found.gates.truth)})
    if gates is not None:
        have_options = ("truth", "fail_under", "min_overlap")
        options |= {name: value for name, value in gates.given().items() if name in have_options}
    exports = [
        each.model_copy(
            update={
                "out": at(each.out),
                "root": each.root and at(each.root),
                "thresholds": each.thresholds and at(each.thresholds),
                "labels": tuple(f"@{at(name[1:])}" if name.startswith("@") else name for name in each.labels),
            }
        )
        for each in found.exports
    ]
    return Recipe(path, source, options, gates, exports, page and at(page))


def _is_folder(model: str, located: str) -> bool:
    """Tell whether a model is a folder, and not a name of the hub: by its form as a path, or because there is one."""
    return model.startswith((".", "/")) or os.path.isdir(located)
