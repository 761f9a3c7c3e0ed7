"""How many outputs of its vision encoder vLLM keeps: those of the images in flight.

vLLM keeps as many image tokens as a step takes: a few images. A request needs those of its image even where its prefix
is cached, since the last block of the prefix is seldom full; an image that was dropped is looked at again. Between an
image's first request and those of the second stage, all the others in flight pass through.
"""

from __future__ import annotations

from typing import Any

_MOST_BYTES = 1 << 29
_BYTES_PER_VALUE = 4  # float32, the widest


def keep_encoder_outputs(config: Any) -> None:
    """Let vLLM's configuration, not used yet, keep image tokens of 512 MiB; no fewer than it would."""
    scheduler = config.scheduler_config
    tokens = _MOST_BYTES // (config.model_config.get_hidden_size() * _BYTES_PER_VALUE)
    scheduler.encoder_cache_size = max(scheduler.encoder_cache_size, tokens)
