"""How many tokens an image and a question take, from the model's own processor.

No weights are read and vLLM is not imported, but Transformers is, which takes seconds: for a report, not for a run.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from tagllm_cli.engines.base import template_kwargs
from tagllm_cli.engines.local.arguments import parse_engine_args
from tagllm_cli.engines.local.errors import message_of
from tagllm_cli.engines.local.model_files import is_remote, local_files
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import ModelError
from tagllm_cli.records import Request

Size = tuple[int, int]
"""Width and height of an image in pixels, as the model gets it."""


class TokenCounter(Protocol):
    """Counts tokens for one model under the engine arguments that were given."""

    def image(self, size: Size) -> int:
        """Return the tokens of an image of (width, height). Raises ModelError where the processor refuses it."""
        ...

    def text(self, request: Request) -> int:
        """Return the tokens of a request without those of its image, the chat template's own included.

        Raises ModelError where the chat template cannot be used.
        """
        ...

    def bound(self) -> tuple[Mapping[str, Any], TokenCounter] | None:
        """Return `mm_processor_kwargs` that make images cost less, and the counter under them.

        None where --max-pixels does it, where nothing does, and where the user has given some.
        """
        ...


def local_counter(options: ModelOptions) -> TokenCounter:
    """Return the counter of the model that is loaded here; see `load_counter`."""
    assert options.model is not None
    return load_counter(options.model, options.engine_args, options.chat_template_kwargs)


def load_counter(
    model: str, engine_args: Mapping[str, str], chat_template_kwargs: Mapping[str, Any] = MappingProxyType({})
) -> TokenCounter:
    """Load the processor and the tokenizer of a model; code that comes with a model is not run.

    Args:
        model: folder or hub name; nothing is downloaded.
        engine_args: as typed; `mm_processor_kwargs`, `revision`, `download_dir` and `tokenizer_mode` are obeyed.
        chat_template_kwargs: variables that the user gave for the chat template.

    Raises:
        ModelError: the tokens cannot be counted; the message says why.

    `load_counter("Qwen/Qwen2.5-VL-7B-Instruct", {}).image((640, 480))` is 391.
    """
    parsed = parse_engine_args(engine_args)
    if is_remote(model):
        raise ModelError(f"{model} is remote: its processor is not here")
    folder = local_files(model, parsed)
    if folder is None:
        raise ModelError(f"{model} is not downloaded", "Download it: hf download NAME.")
    if not folder.is_dir():
        raise ModelError(f"{model} is a file, without a processor")
    options = parsed.get("mm_processor_kwargs") or {}
    if not isinstance(options, dict):
        raise ModelError(f"--engine-arg mm_processor_kwargs: {options!r} is not a JSON object")
    if (folder / "tekken.json").is_file() and parsed.get("tokenizer_mode", "auto") in ("auto", "mistral"):
        return MistralCounter(folder / "tekken.json")
    return ProcessorCounter(folder, options, chat_template_kwargs)


class ProcessorCounter:
    """A `TokenCounter` over a processor of Transformers.

    Args:
        folder: the model.
        options: `mm_processor_kwargs`.
        chat_template_kwargs: variables for the chat template.

    Raises:
        ModelError: the processor cannot be loaded.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], chat_template_kwargs: Mapping[str, Any]) -> None:
        self._folder = folder
        self._given = options
        self._template_kwargs = chat_template_kwargs
        self._options = _flat(options)
        with _as_model_error(f"the processor of {folder.name} cannot be loaded"), _quiet():
            from transformers import AutoProcessor

            # A deep copy: some image processors write into what they are given.
            self._processor = AutoProcessor.from_pretrained(str(folder), **copy.deepcopy(self._options))
        if not hasattr(self._processor, "image_processor"):
            raise ModelError(f"{folder.name} has no image processor")
        is_qwen = type(self._processor.image_processor).__name__.startswith("Qwen2VL")
        size = self._options.get("size")
        if is_qwen and isinstance(size, Mapping) and "longest_edge" in size:  # as vLLM does
            self._options.setdefault("max_pixels", size["longest_edge"])

    def image(self, size: Size) -> int:
        """Return the tokens of an image of (width, height)."""
        processor = self._processor
        with _as_model_error(f"an image of {size[0]} x {size[1]} pixels is refused"), _quiet():
            if hasattr(processor, "full_image_sequence"):  # Gemma, whose own function leaves out the text around it
                crops = self._options.get("do_pan_and_scan", processor.image_processor.do_pan_and_scan)
                return self._measured(size) if crops else self._length(processor.full_image_sequence)
            if hasattr(processor, "_get_num_multimodal_tokens"):
                return self._counted(size)
            if hasattr(processor.image_processor, "do_image_splitting"):  # SmolVLM
                return self._tiled(size)
            return self._measured(size)

    def _counted(self, size: Size) -> int:
        """Return what the processor's own function says, which vLLM uses, too."""
        kinds = self._processor.valid_processor_kwargs
        kept = copy.deepcopy(kinds._defaults)  # the function puts its arguments into the defaults of the class
        try:
            found = self._processor._get_num_multimodal_tokens(image_sizes=[size[::-1]], **copy.deepcopy(self._options))
        finally:
            kinds._defaults = kept
        return int(found["num_image_tokens"][0])

    def _tiled(self, size: Size) -> int:
        """Return the tokens of the text that the processor writes for an image of so many rows and columns."""
        _, rows, cols = self._processor.image_processor.get_number_of_image_patches(*size[::-1], self._options)
        return self._length(self._processor.replace_image_token({"rows": [[rows]], "cols": [[cols]]}, 0))

    def _measured(self, size: Size) -> int:
        """Return how much longer a prompt gets by a blank image than by its placeholder."""
        from PIL import Image

        prompt = self._render(Request("", "?"))
        blank = Image.new("RGB", size)
        whole = self._processor(text=[prompt], images=[[blank]], **copy.deepcopy(self._options))
        return len(whole["input_ids"][0]) - self._length(prompt, special=True) + 1

    def text(self, request: Request) -> int:
        """Return the tokens of a request without those of its image."""
        with _as_model_error("the chat template cannot be used"), _quiet():
            return self._length(self._render(request)) - request.with_image  # less the image's placeholder

    def _length(self, text: str, *, special: bool = False) -> int:
        return len(self._processor.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _render(self, request: Request) -> str:
        """Return the request as the chat template writes it, the image as its placeholder."""
        system = [("system", [{"type": "text", "text": request.system}])] if request.system else []
        image = [{"type": "image"}] if request.with_image else []
        turns = [*system, ("user", [*image, {"type": "text", "text": request.text}])]
        return str(
            self._processor.apply_chat_template(
                [{"role": role, "content": content} for role, content in turns],
                tokenize=False,
                add_generation_prompt=True,
                **template_kwargs(self._template_kwargs),
            )
        )

    def bound(self) -> tuple[Mapping[str, Any], TokenCounter] | None:
        """Return the `mm_processor_kwargs` that bound the tiles of this family, and the counter under them."""
        cheaper = None if self._given else _fewer_tiles(self._processor.image_processor)
        return None if cheaper is None else (cheaper, ProcessorCounter(self._folder, cheaper, self._template_kwargs))


class MistralCounter:
    """A `TokenCounter` over a tokenizer of Mistral's own, which writes the image's tokens itself.

    Args:
        tekken: the tokenizer's file.

    Raises:
        ModelError: it cannot be loaded, or takes no images.
    """

    def __init__(self, tekken: Path) -> None:
        with _as_model_error(f"{tekken} cannot be loaded"), _quiet():
            from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

            self._tokenizer = MistralTokenizer.from_file(str(tekken))
            encoder: Any = self._tokenizer.instruct_tokenizer.image_encoder
        if encoder is None:
            raise ModelError(f"{tekken.parent.name} takes no images")
        self._encoder = encoder

    def image(self, size: Size) -> int:
        """Return the tokens of an image of (width, height)."""
        from mistral_common.protocol.instruct.chunk import ImageChunk
        from PIL import Image

        with _as_model_error(f"an image of {size[0]} x {size[1]} pixels is refused"), _quiet():
            return len(self._encoder(ImageChunk(image=Image.new("RGB", size))).tokens)

    def text(self, request: Request) -> int:
        """Return the tokens of a request without those of its image."""
        from mistral_common.protocol.instruct.messages import SystemMessage, UserMessage
        from mistral_common.protocol.instruct.request import ChatCompletionRequest

        system = [SystemMessage(content=request.system)] if request.system else []
        with _as_model_error("the question cannot be rendered"), _quiet():
            whole: Any = ChatCompletionRequest(messages=[*system, UserMessage(content=request.text)])
            return len(self._tokenizer.encode_chat_completion(whole).tokens)

    def bound(self) -> None:
        """Return None: --max-pixels bounds what an image costs."""
        return


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `mm_processor_kwargs` with the options for images alone among the others."""
    images = options.get("images_kwargs") or {}
    return {**{key: value for key, value in options.items() if not key.endswith("_kwargs")}, **images}


def _fewer_tiles(image_processor: Any) -> dict[str, Any] | None:
    """Return options under which an image is cut into four tiles or fewer; None where it is not cut into tiles."""
    if hasattr(image_processor, "max_patches"):  # InternVL
        return {"max_patches": 4}
    if hasattr(image_processor, "do_image_splitting"):  # Idefics3, SmolVLM
        return {"size": {"longest_edge": 2 * image_processor.max_image_size["longest_edge"]}}
    return None


def engine_arg(options: Mapping[str, Any]) -> str:
    """Return the option to type for these `mm_processor_kwargs`.

    >>> engine_arg({"max_patches": 4})
    '--engine-arg \\'mm_processor_kwargs={"max_patches": 4}\\''
    """
    return f"--engine-arg 'mm_processor_kwargs={json.dumps(options)}'"


@contextmanager
def _as_model_error(what: str) -> Iterator[None]:
    """Turn whatever Transformers and the model's processor raise into a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {message_of(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of Transformers, and of what it imports, off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
