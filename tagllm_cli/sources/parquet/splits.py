"""Which split of a dataset a file belongs to: by the dataset's README, else by the names of folders and files.

The rules are those of `datasets`: the same folder loaded with it has the same splits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.storage.patterns import match_segments
from tagllm_cli.text import shortened

_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SEPARATORS = r"[-._ 0-9]"
_SHARDED = re.compile(r"data/([^/]*?)-\d{5}-of-\d{5}[^/]*\.[^/]*")  # with names of their own
_WORDS = {
    split: re.compile(rf"(?:^|.*{_SEPARATORS})(?:{'|'.join(words)})(?:{_SEPARATORS}.*|$)")
    for split, words in _KEYWORDS.items()
}
_FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)

Splits = Mapping[str, Collection[str]]


def choose(names: Sequence[str], wanted: Collection[str], splits: Splits) -> list[str]:
    """Return the names in the wanted splits, in their order. Raises SourceError where a split has none."""
    unknown = [split for split in wanted if not splits.get(split)]
    if unknown:
        there = shortened(sorted(split for split, of in splits.items() if of), 12)
        raise SourceError(f"there is no split {unknown[0]!r}: the splits are {there}", "Choose from them with --split.")
    taken = {name for split in wanted for name in splits[split]}
    return [name for name in names if name in taken]


def find_splits(names: Sequence[str], readme: str = "") -> Splits:
    """Return the splits of a dataset with files of these names, with the names in each of them.

    `readme` is the text of its README.md: what its front matter says (`configs`) goes before all else. Splits of the
    same name in several configs are one.
    """
    return _declared(names, readme) or _by_name(names)


def _by_name(names: Sequence[str]) -> Splits:
    sharded = {name: found[1] for name in names if (found := _SHARDED.fullmatch(name))}
    if sharded:
        return _grouped(sharded)
    folders = {name: split for name in names if (split := _split_of(name.split("/")[:-1]))}
    if folders:
        return _grouped(folders)
    files = {name: split for name in names if (split := _split_of(name.rsplit("/", 1)[-1:]))}
    return _grouped(files or dict.fromkeys(names, "train"))


def _grouped(split_of: Mapping[str, str]) -> Splits:
    splits: dict[str, set[str]] = {}
    for name, split in split_of.items():
        splits.setdefault(split, set()).add(name)
    return splits


def _split_of(words: Sequence[str]) -> str | None:
    found = (split for word in reversed(words) for split, pattern in _WORDS.items() if pattern.fullmatch(word))
    return next(found, None)


def _declared(names: Sequence[str], readme: str) -> Splits:
    """Return the splits that a README's configs name; none where it has no configs that can be read."""
    found = _FRONT_MATTER.match(readme.lstrip("\ufeff"))
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    configs = front.get("configs") if isinstance(front, dict) else None
    splits: dict[str, set[str]] = {}
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict):
            for split, of in _of_config(names, config).items():
                splits.setdefault(split, set()).update(of)
    return splits


def _of_config(names: Sequence[str], config: dict[str, Any]) -> Splits:
    folder = str(config.get("data_dir") or "").strip("/")
    below = {name[len(folder) :].lstrip("/"): name for name in names if not folder or name.startswith(f"{folder}/")}
    if config.get("data_files") is None:
        splits: Splits = _by_name(list(below))
    else:
        splits = {
            split: [name for name in below if any(_is_match(name, pattern) for pattern in patterns)]
            for split, patterns in _patterns(config["data_files"]).items()
        }
    return {split: [below[name] for name in of] for split, of in splits.items()}


def _patterns(files: Any) -> dict[str, list[str]]:
    """Return the patterns of each split: `data_files` is a text, a list of texts, a mapping, or a list of mappings."""
    if isinstance(files, dict):
        files = [{"split": split, "path": path} for split, path in files.items()]
    patterns: dict[str, list[str]] = {}
    for each in files if isinstance(files, list) else [files]:
        split, paths = (each.get("split", "train"), each.get("path")) if isinstance(each, dict) else ("train", each)
        patterns.setdefault(str(split), []).extend(map(str, paths if isinstance(paths, list) else [paths]))
    return patterns


def _is_match(name: str, pattern: str) -> bool:
    return match_segments(name.split("/"), pattern.removeprefix("./").split("/"))
