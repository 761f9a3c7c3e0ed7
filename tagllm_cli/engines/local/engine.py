"""Engine over vLLM in this process: loaded once, asked asynchronously (`asker.py`)."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import warnings
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import PIL.Image

from tagllm_cli.engines.base import EngineDiedError, Usage, as_answered, check_decoded_image, template_kwargs
from tagllm_cli.engines.hub import commit_of
from tagllm_cli.engines.identity import ModelIdentity, model_identity
from tagllm_cli.engines.local.arguments import check_engine_args, parse_engine_args
from tagllm_cli.engines.local.asker import Asker, SharedImage, read_outputs
from tagllm_cli.engines.local.cpu import cpu_defaults
from tagllm_cli.engines.local.encoder_cache import keep_encoder_outputs
from tagllm_cli.engines.local.errors import explain, message_of
from tagllm_cli.engines.local.gpus import GpuCount, gpu_arguments
from tagllm_cli.engines.local.model_files import check_model, is_remote, local_model
from tagllm_cli.engines.local.pixel_bound import pixel_bound
from tagllm_cli.engines.local.process import Launch, in_daemon_thread
from tagllm_cli.engines.local.rendering import PromptRenderer
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import ModelError
from tagllm_cli.records import DecodedImage, Failure, Request, Response

# Then vLLM's processes are killed. Nothing is lost: what they were asked is answered, or has been given up.
_SHUTDOWN_S = 1.0
# One request of an image goes ahead where fewer images than this fill a step (see `asker.py`).
_IMAGES_PER_STEP = 16
_TRIAL_SIZE = (64, 64)
_THINKS_ALOUD = re.compile(r"<\|?(think|thinking|reasoning)\|?>\s*$")
_SEED = 0  # sampling is greedy; a model with randomness of its own follows it


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How vLLM is started.

    Args:
        model: folder, hub name or URL of the model.
        engine_args: vLLM's engine arguments as typed, `key -> value`; they replace the defaults here.
        chat_template_kwargs: the user's variables for the chat template.
        max_pixels: what no image exceeds (width x height); None: unknown.
        gpus: how many GPUs hold copies of the model; None: those of one copy.
        log_file: where vLLM's log goes; None: stderr.
        verbose: send the log to stderr even so.
    """

    model: str
    engine_args: Mapping[str, str] = field(default_factory=dict)
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_pixels: int | None = None
    gpus: GpuCount | None = None
    log_file: Path | None = None
    verbose: bool = False


def identify_local(options: ModelOptions) -> ModelIdentity:
    """Return the identity of the model that is loaded here. Raises ModelError where there is none."""
    assert options.model is not None
    return model_identity(
        options.model,
        options.engine_args,
        model_id=options.model_id,
        chat_template_kwargs=options.chat_template_kwargs,
    )


def make_local_engine(options: ModelOptions, log_file: Path, pinned: ModelIdentity | None) -> InProcessEngine:
    """Return the engine that loads `options.model` here, not started."""
    assert options.model is not None
    return InProcessEngine(
        EngineSettings(
            options.model,
            options.engine_args,
            options.chat_template_kwargs,
            options.max_pixels,
            options.gpus,
            log_file=log_file,
            verbose=options.verbose,
        )
    )


class InProcessEngine:
    """An `Engine` over vLLM's `AsyncLLM`."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._launch = Launch(None if settings.verbose else settings.log_file)
        self._llm: Any = None
        self._asker: Asker | None = None
        self._prompts: PromptRenderer | None = None
        self._version = "vllm"
        self._capacity = 1
        self._usage = Usage()
        self._ids = itertools.count()
        self._ranks = 1  # copies of the model (data parallelism)
        self._gpus = 1

    @property
    def version(self) -> str:
        """`vllm` and, after `start`, its version."""
        return self._version

    @property
    def capacity(self) -> int:
        """Requests to keep in flight: one batch that runs and one that waits; known after `start`."""
        return self._capacity

    @property
    def gpus(self) -> int | None:
        """Those of all copies of the model."""
        return self._gpus

    @property
    def trouble(self) -> str | None:
        """None: vLLM in this process either answers or dies."""
        return None

    async def start(self) -> None:
        """Load the model; takes about a minute. Cancelling ends the processes that were started.

        Raises:
            ModelError: the model or an engine argument cannot be used.
        """
        parsed = parse_engine_args(self.settings.engine_args)
        check_engine_args(parsed)
        parsed |= await asyncio.to_thread(gpu_arguments, self.settings.gpus, parsed)
        await asyncio.to_thread(check_model, self.settings.model, parsed)
        try:
            self._llm = await in_daemon_thread(lambda: self._load(parsed))
            await self._llm.get_supported_tasks()  # starts the task that receives from the engine core
            prompts = PromptRenderer(self._llm.renderer, template_kwargs(self.settings.chat_template_kwargs))
            self._prompts = prompts
            await self._try_out(prompts)
            config = self._llm.vllm_config
            self._ranks = config.parallel_config.data_parallel_size
            self._gpus = config.parallel_config.world_size_across_dp
            self._capacity = 2 * config.scheduler_config.max_num_seqs * self._ranks
            long_image = config.scheduler_config.max_num_batched_tokens // _IMAGES_PER_STEP
            self._asker = Asker(prompts, self._generate, long_image)
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
                from vllm.platforms import current_platform
                from vllm.usage.usage_lib import UsageContext
                from vllm.v1.engine.async_llm import AsyncLLM

                self._version = f"vllm {vllm.__version__}"
                arguments = {**self._defaults(parsed), **parsed, "model": self.settings.model}
                # The defaults of `LLM` are for throughput, those of a server for latency.
                config = AsyncEngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
                if not config.model_config.is_multimodal_model:
                    raise ModelError(f"{self.settings.model} reads no images", "Use a multimodal model.")
                if current_platform.is_cpu():
                    keep_encoder_outputs(config)
                return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
        except Exception as error:
            raise explain(error, self.settings.model, self._launch.log_file) from error

    def _defaults(self, parsed: Mapping[str, Any]) -> dict[str, Any]:
        """Return engine arguments for this machine and task, which the user's replace."""
        from vllm.platforms import current_platform

        model = self.settings.model
        defaults: dict[str, Any] = {
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 0},
            "max_model_len": -1,  # the model's own, less where the memory cannot hold it
            "seed": _SEED,
        }
        if not is_remote(model) and local_model(model) is None:
            defaults["revision"] = commit_of(model, parsed)  # the one in the model's identity
        if bound := pixel_bound(model, parsed, self.settings.max_pixels):
            defaults["mm_processor_kwargs"] = bound
        if current_platform.is_cpu():
            defaults |= cpu_defaults(model, parsed)
        return defaults

    async def _try_out(self, prompts: PromptRenderer) -> None:
        """Render a text, and one with a small picture: what cannot work fails here, and not once per image."""
        model = self.settings.model
        text = Request(system="", text="yes or no?", with_image=False)
        try:
            tail = await prompts.tail(text)
        except Exception as error:
            raise ModelError(
                f"{model}: its chat template cannot be used: {message_of(error)}",
                "Use the instruction-tuned variant of the model; a base model has no chat template.",
            ) from error
        if _THINKS_ALOUD.search(tail):
            raise ModelError(
                f"{model} answers only after reasoning: its prompt ends in {tail.split()[-1]}",
                "Use the Instruct variant, or the template's own switch, if it has one: --chat-template-kwargs JSON.",
            )
        picture = DecodedImage(PIL.Image.new("RGB", _TRIAL_SIZE, "gray"), f"trial-{id(self)}")
        try:
            await prompts.render(picture, replace(text, with_image=True))
        except Exception as error:
            raise ModelError(
                f"{model} cannot take an image: {message_of(error)}",
                "Install what it asks for, or update vLLM and Transformers.",
            ) from error

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives; see `Engine.ask`."""
        check_decoded_image(decoded_image, requests)
        # All requests about an image go to one copy of the model, which then has its features and its prefix.
        rank = None if decoded_image is None else rank_of(decoded_image.uuid, self._ranks)
        image = None if decoded_image is None else SharedImage(decoded_image)
        if self._asker is None:
            raise RuntimeError("the engine was not started")
        answers = [
            (request, self._asker.respond(image if request.with_image else None, request, rank)) for request in requests
        ]
        async with aclosing(as_answered(answers)) as answered:
            async for request, response in answered:
                self._usage = self._usage.plus(response)
                yield request, response

    async def _generate(self, prompt: Any, request: Request, rank: int | None) -> Response:
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=request.max_tokens,
            logprobs=request.top_logprobs or None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        llm = self._llm
        if llm is None:
            raise RuntimeError("the engine was closed")
        try:
            stream = llm.generate(prompt, sampling, f"tagllm-{next(self._ids)}", data_parallel_rank=rank)
            return read_outputs(request, [output async for output in stream])
        except EngineDeadError:
            raise self._death() from None
        except EngineGenerateError as error:
            return Response(failure=Failure("engine_error", message_of(error)))
        except Exception as error:
            if llm.errored:
                raise self._death() from error
            raise

    def _death(self) -> EngineDiedError:
        log = self._launch.log_file
        hint = f"Its log is {log}." if log else "Its log is above."
        return EngineDiedError("vLLM's engine process has died", hint)

    def usage(self) -> Usage:
        """Return tokens and requests since `start`, from vLLM's figures per request."""
        return self._usage

    async def close(self) -> None:
        """Stop vLLM and end its processes, also after a crash or a failed start."""
        llm, self._llm, self._asker = self._llm, None, None
        if self._prompts is not None:
            self._prompts.close()
        if llm is not None:
            await asyncio.to_thread(llm.shutdown, _SHUTDOWN_S)
            # Cancelled requests leave reference cycles, and its finalizer must not run when the interpreter exits.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # vLLM does not close its ZeroMQ context
                del llm
                gc.collect()
        await asyncio.to_thread(self._launch.end_processes)
        self._launch.close_log()


def rank_of(uuid: str, ranks: int) -> int | None:
    """Return which copy of the model is asked about an image; None where there is one."""
    return zlib.crc32(uuid.encode()) % ranks if ranks > 1 else None
