"""Tokens of images and texts from the real processors of the families; what real vLLM computed is in TOKENS."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.engines.factory import token_counter
from tagllm_cli.engines.local.image_tokens import ProcessorCounter, Size, TokenCounter, engine_arg, load_counter
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import ModelError
from tagllm_cli.records import Request
from tagllm_cli.sources.decode import fit
from tests.families.registry import FAMILIES, built
from tests.support.live import MODEL

SIZES = [(640, 480), (224, 224), (1, 1), (1226, 817)]
# As vLLM 0.32 expands an image of each of SIZES, under these `mm_processor_kwargs`.
TOKENS: list[tuple[str, dict[str, Any], list[int]]] = [
    ("qwen2_5_vl", {}, [391, 64, 4, 1276]),
    ("qwen2_5_vl", {"max_pixels": 501760}, [391, 64, 4, 600]),
    ("qwen2_5_vl", {"size": {"shortest_edge": 3136, "longest_edge": 501760}}, [391, 64, 4, 600]),
    ("qwen2_5_vl", {"images_kwargs": {"max_pixels": 501760}}, [391, 64, 4, 600]),
    ("qwen3_vl", {}, [300, 64, 64, 988]),
    ("qwen3_vl", {"max_pixels": 501760}, [300, 64, 64, 486]),
    ("qwen3_vl", {"size": {"shortest_edge": 65536, "longest_edge": 501760}}, [300, 64, 64, 486]),
    ("qwen3_vl_thinking", {}, [300, 64, 64, 988]),
    ("internvl", {}, [3330, 258, 258, 1794]),
    ("internvl", {"max_patches": 4}, [258, 258, 258, 770]),
    ("internvl", {"crop_to_patches": False}, [258, 258, 258, 258]),
    ("gemma3", {}, [260, 260, 260, 260]),
    ("idefics3", {}, [2228, 2913, 2913, 2228]),
    ("idefics3", {"size": {"longest_edge": 728}}, [859, 859, 859, 859]),
    ("idefics3", {"do_image_splitting": False}, [172, 172, 172, 172]),
    ("smolvlm2", {}, [1084, 1417, 1417, 1084]),
    ("smolvlm2", {"size": {"longest_edge": 756}}, [419, 419, 419, 419]),
    ("smolvlm2", {"do_image_splitting": False}, [84, 84, 84, 84]),
    ("llava_onevision", {}, [2929, 1485, 1485, 8468]),
    ("pixtral", {}, [1230, 210, 2, 2795]),
]
QUESTION = Request("You label images.", "Is a cat visible? Answer yes or no.")


def counter(family: str, options: dict[str, Any] | None = None) -> TokenCounter:
    given = {"load_format": "dummy"}
    return load_counter(str(built(family)), given | ({"mm_processor_kwargs": json.dumps(options)} if options else {}))


@pytest.mark.parametrize(("family", "options", "tokens"), TOKENS)
def test_the_tokens_of_an_image_are_those_of_vllm(family: str, options: dict[str, Any], tokens: list[int]) -> None:
    counts = counter(family, options)
    assert [counts.image(size) for size in SIZES] == tokens


def test_the_crops_of_pan_and_scan_are_counted() -> None:
    assert counter("gemma3", {"do_pan_and_scan": True}).image((640, 480)) == 832  # as vLLM's


def test_every_family_is_counted() -> None:
    assert {family for family, options, _ in TOKENS if not options} == set(FAMILIES)


def test_one_models_options_do_not_reach_the_next() -> None:
    assert counter("internvl", {"max_patches": 4}).image((640, 480)) == 258
    assert counter("internvl").image((640, 480)) == 3330


@cache
def qwen() -> TokenCounter:
    return counter("qwen2_5_vl")


@settings(deadline=None)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_qwen_counts_whole_squares_of_28_pixels(width: int, height: int) -> None:
    counts = qwen()
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ModelError, match=r"refused: absolute aspect ratio must be smaller than 200"):
            counts.image((width, height))
        return
    tokens = counts.image((width, height))
    squares = round(width / 28) * round(height / 28)
    if 3136 <= squares * 28 * 28 <= 12_845_056:
        assert tokens == squares
    else:  # scaled up, and rounded up, or down
        assert 4 <= tokens <= 12_845_056 // (28 * 28)


SHAPES = [(side, round(side * ratio)) for side in (64, 224, 500, 1000) for ratio in (0.1, 0.5, 0.75, 1, 2, 5)]


@pytest.mark.parametrize(
    ("family", "most"), [("internvl", 5 * 256 + 2), ("idefics3", 5 * 169 + 14), ("smolvlm2", 5 * 81 + 14)]
)
def test_four_tiles_and_the_whole_are_the_bound_of_families_that_cut(family: str, most: int) -> None:
    found = counter(family).bound()
    assert found is not None
    options, bounded = found
    counts = [bounded.image(size) for size in SHAPES]
    assert max(counts) <= most < max(counter(family).image(size) for size in SHAPES)
    assert counter(family, dict(options)).image((640, 480)) == bounded.image((640, 480))
    assert json.loads(engine_arg(options).split("=", 1)[1].rstrip("'")) == options


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision", "pixtral"])
def test_the_others_have_no_bound_of_their_own(family: str) -> None:
    assert counter(family).bound() is None


def test_what_the_user_chose_is_not_bounded_again() -> None:
    assert counter("internvl", {"max_patches": 6}).bound() is None


@pytest.mark.parametrize(
    ("family", "pixels", "most"), [("llava_onevision", 384 * 384, 2250), ("pixtral", 256 * 256, 330)]
)
def test_the_pixel_budget_bounds_families_whose_tokens_follow_the_size(family: str, pixels: int, most: int) -> None:
    counts = counter(family)
    assert max(counts.image(fit(size, pixels)) for size in SHAPES) <= most < counts.image((1000, 1000))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_counted_with_its_template_and_without_its_image(family: str) -> None:
    counts = counter(family)
    longer = Request(QUESTION.system, f"{QUESTION.text} {QUESTION.text}")
    alone = Request(QUESTION.system, QUESTION.text, with_image=False)
    assert 0 < counts.text(alone) <= counts.text(QUESTION) < counts.text(longer)
    assert counts.text(QUESTION) - counts.text(alone) <= 3  # what a template writes around an image


def test_the_whole_prompt_is_what_the_processor_makes() -> None:
    counts = counter("idefics3")
    assert isinstance(counts, ProcessorCounter)
    size = (640, 480)
    assert counts.text(QUESTION) + counts.image(size) == whole_prompt(built("idefics3"), QUESTION, size)


def test_the_demo_model_takes_no_tiles() -> None:
    counts = load_counter(str(MODEL), {})
    assert {counts.image(size) for size in SIZES} == {52}
    assert counts.text(QUESTION) + 52 == whole_prompt(MODEL, QUESTION, (224, 224))


def whole_prompt(model: Path, request: Request, size: Size) -> int:
    """The length of the prompt that the processor makes with a real image."""
    import PIL.Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    content = [{"type": "image"}, {"type": "text", "text": request.text}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": request.system}]},
        {"role": "user", "content": content},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    made = processor(text=[text], images=[[PIL.Image.new("RGB", size)]], add_special_tokens=False)
    return len(made["input_ids"][0])


def reason(options: ModelOptions) -> str:
    with pytest.raises(ModelError) as caught:
        token_counter(options)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_what_cannot_be_counted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(ModelOptions()) == "no model is named: give --model"
    assert "only the server knows" in reason(ModelOptions(model="m", endpoints=("http://127.0.0.1:9",)))
    assert "a recording" in reason(ModelOptions(replay=tmp_path))
    assert "is remote" in reason(ModelOptions(model="s3://bucket/model"))
    assert "no model at ./nothing" in reason(ModelOptions(model="./nothing"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a file, without a processor" in reason(ModelOptions(model=str(tmp_path / "model.gguf")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "maker/vlm is not downloaded" in reason(ModelOptions(model="maker/vlm"))
    chosen = ModelOptions(model=str(built("gemma3")), engine_args={"mm_processor_kwargs": "4"})
    assert "is not a JSON object" in reason(chosen)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    chosen = ModelOptions(model=str(tmp_path), engine_args={"trust_remote_code": "true"})
    assert "cannot be loaded" in reason(chosen)
    assert not (tmp_path / "ran").exists()


def test_a_model_without_a_processor(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((built("internvl") / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}))
    assert "has no image processor" in reason(ModelOptions(model=str(tmp_path)))
