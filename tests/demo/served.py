"""The demo model as unmodified vLLM serves it, in this process: questions in, texts and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.demo import wordings


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a picture (uint8 [height, width, 3], or None) with a name for it, and the user text."""

    picture: NDArray[np.uint8] | None
    key: str
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Told:
    """What came back. `yes` and `no` are probabilities of the first token, 0 to 1, unguided."""

    text: str
    yes: float
    no: float
    prompt_tokens: int
    cached_tokens: int

    @property
    def p_yes(self) -> float:
        """Probability of yes among yes and no; 0.5 if the model said neither."""
        both = self.yes + self.no
        return self.yes / both if both else 0.5


class Served:
    """A vLLM engine on a model folder. Starting takes about a minute; one at a time."""

    def __init__(self, model: Path) -> None:
        """Loads the model with the settings that make the prefix cache work on a CPU."""
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        from vllm import LLM

        # On a CPU a block is 128 tokens by default, more than a picture and the system prompt take.
        self._llm = LLM(
            str(model), block_size=32, enable_prefix_caching=True, limit_mm_per_prompt={"image": 1}, dtype="bfloat16",
            max_model_len=4096, gpu_memory_utilization=0.3,
        )  # fmt: skip
        self._system = str(wordings.templates()["group"]["system"])
        template = wordings.templates()["verify"]
        self._yes, self._no = frozenset(map(str, template["yes"])), frozenset(map(str, template["no"]))

    def ask(self, asks: Sequence[Ask]) -> list[Told]:
        """Answers in the order of `asks`, greedy, with the top 20 log-probabilities of the first token."""
        from vllm import SamplingParams

        params = [SamplingParams(temperature=0, max_tokens=ask.max_tokens, logprobs=20) for ask in asks]
        done = self._llm.chat([self._messages(ask) for ask in asks], params, use_tqdm=False)
        return [self._told(output) for output in done]

    def _messages(self, ask: Ask) -> Any:
        from PIL import Image

        parts: list[dict[str, Any]] = [{"type": "text", "text": ask.text}]
        if ask.picture is not None:
            parts.insert(0, {"type": "image_pil", "image_pil": Image.fromarray(ask.picture), "uuid": ask.key})
        return [{"role": "system", "content": self._system}, {"role": "user", "content": parts}]

    def _told(self, output: Any) -> Told:
        yes = no = 0.0
        for entry in output.outputs[0].logprobs[0].values():
            word = (entry.decoded_token or "").strip().casefold()
            yes += float(np.exp(entry.logprob)) if word in self._yes else 0.0
            no += float(np.exp(entry.logprob)) if word in self._no else 0.0
        return Told(
            output.outputs[0].text, yes, no, len(output.prompt_token_ids), output.num_cached_tokens or 0
        )  # fmt: skip
