"""vLLM in this process's own care: loaded once, asked asynchronously, kept full.

Token counts come from vLLM's own figures for each finished request (`RequestOutput.prompt_token_ids` and
`num_cached_tokens`, which the scheduler sets from the prefix cache), so the counters count what was really computed.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import shutil
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import (
    EngineDiedError,
    Usage,
    as_answered,
    check_decoded_image,
    failure_kind,
    merge_logprobs,
)
from tagllm_cli.engines.hub import commit_of
from tagllm_cli.engines.local.arguments import check_engine_args, parse_engine_args
from tagllm_cli.engines.local.errors import explain, one_line
from tagllm_cli.engines.local.memory import cpu_cache_bytes
from tagllm_cli.engines.local.model_files import check_model, is_remote, local_model, weight_bytes
from tagllm_cli.engines.local.process import Launch, in_daemon_thread
from tagllm_cli.engines.local.rendering import PromptRenderer
from tagllm_cli.errors import ModelError
from tagllm_cli.records import DecodedImage, Failure, Request, Response

# On CPU vLLM's default of 128 tokens is more than the image prefix of a small picture: nothing would be shared.
_CPU_BLOCK_SIZE = 32
_SHUTDOWN_S = 20.0  # an engine core takes about five to leave in order; after that it is killed


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How vLLM is started.

    Args:
        model: folder, hub name or URL of the model.
        engine_args: vLLM's engine arguments as typed, `key -> value`; they win over every default here.
        max_model_len: context in tokens; None: the model's own, less where the memory cannot hold it.
        log_file: where vLLM's log goes; None: stderr.
        verbose: send the log to stderr even so.
        seed: vLLM's seed (sampling is greedy; the model's own randomness, if any, follows it).
    """

    model: str
    engine_args: Mapping[str, str] = field(default_factory=dict)
    max_model_len: int | None = None
    log_file: Path | None = None
    verbose: bool = False
    seed: int = 0


class InProcessEngine:
    """An `Engine` over vLLM's `AsyncLLM`."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._launch = Launch(None if settings.verbose else settings.log_file)
        self._llm: Any = None
        self._prompts: PromptRenderer | None = None
        self._version = "vllm"
        self._capacity = 1
        self._usage = Usage()
        self._ids = itertools.count()
        self._turns = itertools.count()
        self._ranks = 1  # copies of the model (data parallelism)

    @property
    def version(self) -> str:
        """`vllm` and, after `start`, its version."""
        return self._version

    @property
    def capacity(self) -> int:
        """Requests wanted in flight: one batch that runs and one that waits; known after `start`."""
        return self._capacity

    async def start(self) -> None:
        """Load the model; takes about a minute. Cancelling ends what has been started.

        Raises:
            ModelError: the model or an engine argument cannot be used.
        """
        parsed = parse_engine_args(self.settings.engine_args)
        check_engine_args(parsed)
        await asyncio.to_thread(check_model, self.settings.model, parsed)
        try:
            self._llm = await in_daemon_thread(lambda: self._load(parsed))
            await self._llm.get_supported_tasks()  # starts the task that hears from the engine core, its death included
            self._prompts = PromptRenderer(self._llm.renderer)
            config = self._llm.vllm_config
            self._ranks = config.parallel_config.data_parallel_size
            self._capacity = 2 * config.scheduler_config.max_num_seqs * self._ranks
            await self._try_template()
        except asyncio.CancelledError:
            self._launch.abandon()
            raise
        except BaseException:
            await self.close()
            raise

    def _load(self, parsed: Mapping[str, Any]) -> Any:
        """Import vLLM, start its processes and load the model (blocking; in its own thread)."""
        try:
            with self._launch.guarded():
                import vllm
                from vllm.engine.arg_utils import AsyncEngineArgs
                from vllm.usage.usage_lib import UsageContext
                from vllm.v1.engine.async_llm import AsyncLLM

                self._version = f"vllm {vllm.__version__}"
                arguments = {**self._defaults(parsed), **parsed, "model": self.settings.model}
                # The defaults of `LLM`, made for throughput, not those of a server, made for latency.
                config = AsyncEngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
                if not config.model_config.is_multimodal_model:
                    raise ModelError(f"{self.settings.model} reads no images", "Use a multimodal model.")
                return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
        except Exception as error:
            raise explain(error, self.settings.model, self._launch.log_file) from error

    def _defaults(self, parsed: Mapping[str, Any]) -> dict[str, Any]:
        """Engine arguments that suit this machine and this job, under whatever the user gave."""
        from vllm.platforms import current_platform

        defaults: dict[str, Any] = {
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 0},
            "max_model_len": self.settings.max_model_len or -1,  # -1: what the model says, if the memory can hold it
            "seed": self.settings.seed,
        }
        model = self.settings.model
        if not is_remote(model) and local_model(model) is None:
            defaults["revision"] = commit_of(model, parsed)  # the one that the model's identity names
        if current_platform.is_cpu():
            defaults["block_size"] = _CPU_BLOCK_SIZE
            defaults["mm_processor_cache_gb"] = 1
            defaults["enforce_eager"] = not (os.environ.get("CXX") or shutil.which("g++"))  # to compile for the CPU
            if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
                defaults["kv_cache_memory_bytes"] = cpu_cache_bytes(weight_bytes(model, parsed))
        return defaults

    async def _try_template(self) -> None:
        """Render one text, so that a model without a usable chat template is found out now."""
        assert self._prompts is not None
        try:
            await self._prompts.render(None, Request(system="", text="yes or no?", with_image=False))
        except Exception as error:
            raise ModelError(
                f"{self.settings.model}: its chat template cannot be used: {one_line(error)}",
                "Use the instruction-tuned variant of the model; a base model has no chat template.",
            ) from error

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives; see `Engine.ask`."""
        check_decoded_image(decoded_image, requests)
        # An image stays with one copy of the model: only that one's cache will hold it.
        rank = next(self._turns) % self._ranks if self._ranks > 1 else None
        answers = [(request, self._answer(decoded_image, request, rank)) for request in requests]
        async with aclosing(as_answered(answers)) as answered:
            async for request, response in answered:
                self._usage = self._usage.plus(response)
                yield request, response

    async def _answer(self, decoded_image: DecodedImage | None, request: Request, rank: int | None) -> Response:
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if self._llm is None or self._prompts is None:
            raise RuntimeError("the engine was not started")
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=request.max_tokens,
            logprobs=request.top_logprobs or None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            prompt = await self._prompts.render(decoded_image, request)
            stream = self._llm.generate(prompt, sampling, f"tagllm-{next(self._ids)}", data_parallel_rank=rank)
            outputs = [output async for output in stream]
        except EngineDeadError:
            raise self._death() from None
        except EngineGenerateError as error:
            return Response(failure=Failure("engine_error", one_line(error.__cause__ or error)))
        except Exception as error:  # one request's own trouble, found by vLLM, Transformers or the model's processor
            if self._llm.errored:
                raise self._death() from error
            return Response(failure=Failure(failure_kind(str(error)), one_line(error)))
        return _response(outputs)

    def _death(self) -> EngineDiedError:
        log = self._launch.log_file
        hint = f"Its log is {log}. Running the command again goes on from here." if log else "Its log is above."
        return EngineDiedError("vLLM's engine process has died", hint)

    def usage(self) -> Usage:
        """Return tokens and requests since `start`, from vLLM's own figures per request."""
        return self._usage

    async def close(self) -> None:
        """Stop vLLM and end its processes, also when it is dead or never came up."""
        llm, self._llm, self._prompts = self._llm, None, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown, _SHUTDOWN_S)
            # Cancelled requests leave cycles around it, and its finalizer must not run when the interpreter ends.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # vLLM leaves its ZeroMQ context to the collector
                del llm
                gc.collect()
        await asyncio.to_thread(self._launch.end_processes)
        self._launch.close_log()


def _response(outputs: Sequence[Any]) -> Response:
    """The last `RequestOutput` of a request as a Reply."""
    if not outputs or outputs[-1].outputs[0].finish_reason not in ("stop", "length"):
        return Response(failure=Failure("engine_error", "vLLM ended the request without an answer"))
    output, answer = outputs[-1], outputs[-1].outputs[0]
    return Response(
        text=answer.text,
        finish=answer.finish_reason,
        first_logprobs=merge_logprobs(
            (entry.decoded_token or "", entry.logprob) for entry in (answer.logprobs or [{}])[0].values()
        ),
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        output_tokens=len(answer.token_ids),
    )
