"""The data that comes with the package: where it lies, and how it and a user's own file of the same kind are read."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from tagllm_cli.errors import VocabularyError

# libyaml reads 10,000 labels in under a second, the pure Python loader in many.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML in which a plain scalar is text, but for null, and no mapping has a key twice.

    The usual rules would read the names `no`, `on`, `1` and `2024-01-01` as something else than text.
    """

    yaml_implicit_resolvers: ClassVar[Any] = {
        first: [(tag, pattern) for tag, pattern in rules if tag == "tag:yaml.org,2002:null"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), "")
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return mapping


def folder(kind: Literal["prompts", "vocab"]) -> Path:
    """Return the folder of the templates or vocabularies that come with the package.

    A wheel carries them inside the package, a checkout at its top level.
    """
    package = Path(__file__).resolve().parent
    inside = package / "data" / kind
    return inside if inside.is_dir() else package.parent / kind


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without a byte order mark; VocabularyError where there is none to read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path} is not UTF-8 text (byte {error.start})", "Save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise VocabularyError(f"{path} cannot be read: {reason}", "Check the path and its permissions.") from error


def read_yaml(path: Path) -> object:
    """Return a YAML file's content: dict, list, str or None; every scalar but null is a str, whatever it looks like.

    Raises VocabularyError, with the line, where the file cannot be read or is not YAML.
    """
    try:
        content: object = yaml.load(read_text(path), Loader=_Loader)  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise VocabularyError(f"{path}{where}: {error.problem or error.context}", _CHECK) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise VocabularyError(f"{path} is not valid YAML: {reason}", _CHECK) from error
    return content


_CHECK = "Correct the file; names with special characters need quotes in YAML."
