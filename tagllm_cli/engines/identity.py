"""Model identity: a 16-byte digest that changes when the model's responses may change, and only then.

A local model is identified by its weights, configuration, tokenizer, chat template and processor, a hub model by its
commit, a served model by its served name. Of a model that is loaded here, the data type, quantization and processor
options that the user gave count too; defaults that depend on the machine do not (`local/cpu.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tagllm_cli.engines.hub import commit_of
from tagllm_cli.engines.local.arguments import parse_engine_args
from tagllm_cli.engines.local.model_files import is_remote, local_model
from tagllm_cli.errors import ModelError

# Engine arguments that change responses; others (memory, batch sizes, parallelism) change only the speed.
_DECISIVE = (
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "hf_overrides",
    "mm_processor_kwargs",
    "tokenizer",
    "tokenizer_mode",
    "tokenizer_revision",
    "code_revision",
    "generation_config",
    "override_generation_config",
)
_NONE: Mapping[str, Any] = MappingProxyType({})
_UNSET: tuple[Any, ...] = (None, "auto", {}, "")
_NOT_READ = ("readme", "license", "licence", "notice", "changelog", "use_policy")
_NOT_READ_SUFFIXES = (".md", ".png", ".jpg", ".jpeg", ".gif", ".pdf", ".lock", ".incomplete")
_READERS = 4
_CACHE_FILE = "models.json"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model's name for messages and its 16-byte digest for the evidence."""

    name: str
    digest: bytes


def served_identity(name: str, chat_template_kwargs: Mapping[str, Any] = _NONE) -> ModelIdentity:
    """Return the identity of a model known by a name alone: a served id, or the user's `--model-id`."""
    more = (dict(chat_template_kwargs),) if chat_template_kwargs else ()
    return ModelIdentity(name, _digest("name", name, *more))


def model_identity(
    model: str,
    engine_args: Mapping[str, str],
    *,
    model_id: str | None = None,
    chat_template_kwargs: Mapping[str, Any] = _NONE,
    cache_dir: Path | None = None,
) -> ModelIdentity:
    """Return the identity of what `--model` names.

    Args:
        model: folder, GGUF file, hub name, or URL (which needs `model_id`).
        engine_args: as for `EngineSettings`.
        model_id: the user's own name for it; no file is read then, and a server of the same name is the same model.
        chat_template_kwargs: variables that the user gave for the chat template; they count like options.
        cache_dir: where digests of files are cached by size and mtime; None: the user's cache folder.

    Raises:
        ModelError: there is no such model, or a hub name cannot be looked up.
    """
    if model_id:
        return served_identity(model_id, chat_template_kwargs)
    if is_remote(model):
        raise ModelError(f"cannot tell which model is at {model}", "Name it: --model-id NAME-AND-VERSION.")
    parsed = parse_engine_args(engine_args)
    options = {key: parsed[key] for key in _DECISIVE if key in parsed and parsed[key] not in _UNSET}
    if chat_template_kwargs:
        options["chat_template_kwargs"] = dict(chat_template_kwargs)
    if parsed.get("load_format") == "dummy":
        options["weights"] = f"random, seed {parsed.get('seed', 0)}"
    path = local_model(model)
    if path is None:
        return ModelIdentity(model, _digest("hub", model, commit_of(model, parsed), options))
    files = _DigestCache(cache_dir or default_cache_dir()).digests(path)
    name = path.resolve().name
    return ModelIdentity(name, _digest("files", sorted(files.items()), options))


def default_cache_dir() -> Path:
    """Return the user's cache folder for this tool (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagllm"


def _digest(*parts: Any) -> bytes:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _model_files(model: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a model that can change a response, as (POSIX path below the folder, path)."""
    if model.is_file():
        yield model.name, model
        return
    for folder, subfolders, names in os.walk(model):
        # `original` holds the same weights again, in a form that vLLM does not read.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "original")
        for name in sorted(names):
            lower = name.lower()
            if not lower.startswith((".", *_NOT_READ)) and not lower.endswith(_NOT_READ_SUFFIXES):
                path = Path(folder) / name
                yield path.relative_to(model).as_posix(), path


class _DigestCache:
    """Digests of large files, cached in a JSON file so that a second run reads no weights.

    The file is replaced as a whole: of two concurrent runs, one may lose its new entries. A damaged file counts as
    empty.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / _CACHE_FILE
        self._known = self._load()

    def digests(self, model: Path) -> dict[str, str]:
        """Return the digest of each of the model's files by its path below the folder, as hexadecimal text."""
        files = dict(_model_files(model))
        try:
            with ThreadPoolExecutor(_READERS) as readers:
                pairs = list(readers.map(self._digest_of, files.values()))
        except OSError as error:
            raise ModelError(f"{error.filename} cannot be read: {error.strerror}", "Check the model's files.") from None
        learned = {str(path.resolve()): entry for path, entry in zip(files.values(), pairs, strict=True)}
        if any(self._known.get(key) != entry for key, entry in learned.items()):
            self._store(learned)
        return {name: entry[2] for name, entry in zip(files, pairs, strict=True)}

    def _digest_of(self, path: Path) -> list[Any]:
        """Return [size, mtime in ns, digest] of one file."""
        stat = path.stat()
        known = self._known.get(str(path.resolve()))
        if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return known
        with path.open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return [stat.st_size, stat.st_mtime_ns, content.hexdigest()]

    def _load(self) -> dict[str, list[Any]]:
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        return {key: entry for key, entry in content.items() if isinstance(entry, list) and len(entry) == 3}

    def _store(self, learned: Mapping[str, list[Any]]) -> None:
        """Add entries and drop those of deleted files; a cache that cannot be written is no error."""
        entries = {key: entry for key, entry in {**self._load(), **learned}.items() if Path(key).exists()}
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(entries), encoding="utf-8")
            fresh.replace(self._path)
