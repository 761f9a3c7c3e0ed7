"""The small models are models to the tool, the same every time, and their chat templates have the hub's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.engines.local.model_files import check_folder
from tests.families.__main__ import lines
from tests.families.registry import FAMILIES, build, built

SYSTEM, QUESTION = "You label images.", "Is a cat visible?"
PLACEHOLDERS = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl_thinking": "<|vision_start|><|image_pad|><|vision_end|>",
    "internvl": "<IMG_CONTEXT>",
    "gemma3": "<start_of_image>",
    "idefics3": "<image>",
    "smolvlm2": "<image>",
    "llava_onevision": "<image>",
}


def rendered(family: str) -> str:
    """What the family's chat template makes of one question about one image."""
    from transformers import AutoTokenizer

    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": content},
    ]
    tokenizer = AutoTokenizer.from_pretrained(built(family))
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tool_takes_the_folder_for_a_complete_model(family: str) -> None:
    check_folder(built(family), {"load_format": "dummy"})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_build_has_the_same_bytes(family: str, tmp_path: Path) -> None:
    again = build(family, tmp_path)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in built(family).iterdir()
    }


@pytest.mark.parametrize("family", PLACEHOLDERS)
def test_the_image_comes_once_and_before_the_question(family: str) -> None:
    text = rendered(family)
    assert text.count(PLACEHOLDERS[family]) == 1
    assert text.index(SYSTEM) < text.index(PLACEHOLDERS[family]) < text.index(QUESTION)


def test_only_the_thinking_template_ends_in_an_open_think_tag() -> None:
    assert [family for family in PLACEHOLDERS if rendered(family).endswith("<think>\n")] == ["qwen3_vl_thinking"]


def test_the_table_of_the_docs_is_what_its_command_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models-and-servers.md").read_text(encoding="utf-8")
    assert "\n".join(lines()) in page
