"""What a text is around an image, what an image is within a text, and the engine's input that the two make."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """The tokens of a text around an image.

    Args:
        head: before the image.
        probe: of the probe image in this text. Where they differ between texts, those of other images do, too: Gemma's
            line breaks make one token with those of the text.
        tail: after the image.
    """

    head: list[int]
    probe: tuple[int, ...]
    tail: list[int]


class Form(NamedTuple):
    """The tokens of an image in texts whose frames have the same probe, and vLLM's `PlaceholderRange` of them."""

    tokens: list[int]
    span: Any


class PreparedImage:
    """An image as vLLM's processor leaves it, from its first request on.

    Attributes:
        rendered: the engine's input of its first request, with the features until they are sent.
        forms: its tokens, by the frame's probe.
        is_sent: whether a request has taken the features along; later ones do without.
    """

    def __init__(self) -> None:
        self.rendered: Mapping[str, Any] = {}
        self.forms: dict[tuple[int, ...], Form] = {}
        self.is_sent = False

    def input(self, frame: Frame, form: Form, *, engine_keeps: bool) -> dict[str, Any]:
        """Return the input for a text; with the features, unless they were sent to an engine that keeps them."""
        [modality] = self.rendered["mm_placeholders"]
        prompt = {
            **self.rendered,
            "prompt_token_ids": [*frame.head, *form.tokens, *frame.tail],
            "mm_placeholders": {modality: [replace(form.span, offset=len(frame.head))]},
            "arrival_time": time.time(),
        }
        if engine_keeps:
            self.is_sent = True
            self.rendered = {**self.rendered, "mm_kwargs": {modality: [None]}}  # the features are megabytes
        return prompt


def frame_in(rendered: Mapping[str, Any]) -> Frame | None:
    """Return what is around the image in an engine's input; None where it has no one place in it."""
    if rendered.get("type") != "multimodal":
        return None
    spans = [span for of_kind in rendered["mm_placeholders"].values() for span in of_kind]
    if len(spans) != 1:
        return None
    tokens, start, end = rendered["prompt_token_ids"], spans[0].offset, spans[0].offset + spans[0].length
    return Frame(tokens[:start], tuple(tokens[start:end]), tokens[end:])


def form_in(rendered: Mapping[str, Any], frame: Frame) -> Form | None:
    """Return an image's tokens in an engine's input; None where other tokens than the frame's are around them."""
    found = frame_in(rendered)
    if found is None or (found.head, found.tail) != (frame.head, frame.tail):
        return None
    [[span]] = rendered["mm_placeholders"].values()
    return Form(list(found.probe), span)
