"""`export --option key=value`, typed and in a pipeline file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.export.options import parse_options
from tagllm_cli.pipeline.recipe.file import load_recipe
from tests.export.conftest import root, table  # noqa: F401 (fixtures)
from tests.support.command_line import tagllm


def export(table: Path, *options: str, format_: str = "captions") -> str:  # noqa: F811
    out = table.with_name("out")
    result = tagllm(["export", str(table), "--format", format_, "--out", str(out), *options])
    return f"{result.exit_code} {result.output}"


def test_options_of_a_format_are_typed_as_key_and_value(table: Path) -> None:  # noqa: F811
    assert export(table, "--option", "separator=; ", "--option", "prefix=a=b").startswith("0 ")
    assert (table.with_name("out") / "a dog & cat.txt").read_text() == "a=b; cat; dog\n"


@pytest.mark.parametrize(
    ("given", "format_", "said"),
    [
        ("prefix", "captions", "--option prefix is not of the form key=value"),
        ("naming=stem", "captions", "--format captions has no option 'naming'"),
        ("order=size", "captions", "--option order=size: there is no such order"),
        ("naming=stem", "coco", "--format coco has no option 'naming'"),
    ],
)
def test_what_is_no_option_of_the_format_is_refused(table: Path, given: str, format_: str, said: str) -> None:  # noqa: F811
    printed = export(table, "--option", given, format_=format_)
    assert printed.startswith("2 ")
    assert said in " ".join(printed.split())
    assert not table.with_name("out").exists()


def test_a_pipeline_file_has_them_as_a_list(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("source: a\nexports:\n- {format: xmp, out: a, option: [naming=stem, under=AI]}\n")
    (step,) = load_recipe(path).exports
    assert step.settings().format_options == {"naming": "stem", "under": "AI"}


def test_the_last_of_a_key_counts_and_a_key_is_never_empty() -> None:
    assert parse_options(["a=1", "a=2"]) == {"a": "2"}
    with pytest.raises(UsageError, match="not of the form"):
        parse_options(["=1"])
