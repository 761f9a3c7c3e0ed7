"""One self-contained HTML file from a jinja2 template, a stylesheet, scripts and data; it opens without a network.

A page named `report` is `report.html`, `report.css` and `report.js` in a folder of its package. The template extends
`base.html`, which lies beside this module with what all pages share: layout, colors for light and dark, and
`pageData()`, which returns the data. A Content-Security-Policy forbids every connection and every script and style but
those that are inlined, by their hash: text of a table never runs, whatever it holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagllm_cli.store.atomic import check_replaceable, check_writable_path

BASE = Path(__file__).parent / "base"
_BEGINNING = b"<!doctype html>"
_MARK = b'<meta name="generator" content="tagllm">'


def check_page(path: Path) -> None:
    """Raise UsageError where a page cannot be written: another file is never replaced."""
    check_writable_path(path)
    check_replaceable(path, is_page)


def is_page(path: Path) -> bool:
    """Tell whether a file is a page of ours."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(2000)
    return beginning.startswith(_BEGINNING) and _MARK in beginning


def render(folder: Path, name: str, data: Any, values: Mapping[str, Any], *, libraries: Sequence[str] = ()) -> str:
    """Return the page as text.

    Args:
        folder: where the page's template, stylesheet and script lie.
        name: of the page.
        data: plain JSON, for the script; no NaN.
        values: for the template, where they are escaped; `title` among them.
        libraries: names of those beside `base.html` that the script needs, such as `uplot`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, BASE]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    parts = [BASE / "base", *(BASE / each for each in libraries), folder / name]
    style, script = (_joined([each.with_suffix(ending) for each in parts]) for ending in (".css", ".js"))
    return environment.get_template(f"{name}.html").render(
        **values, style=style, script=script, policy=_policy(style, script), data=embedded_json(data)
    )


def embedded_json(data: Any) -> str:
    """Return data as JSON that cannot end the script element that holds it, in ASCII. Raises ValueError for NaN.

    >>> print(embedded_json(["</script>", "é\u2028"]))
    ["\\u003c/script\\u003e","\\u00e9\\u2028"]
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _joined(files: Sequence[Path]) -> str:
    text = "\n".join(file.read_text(encoding="utf-8").strip() for file in files)
    if "</" + "script" in text or "</" + "style" in text:
        raise ValueError(f"one of {', '.join(map(str, files))} would end the element that holds it")
    return text


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy: pictures of the file itself, this stylesheet and this script, nothing else."""
    styles, scripts = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{styles}'; script-src 'sha256-{scripts}'; "
        "base-uri 'none'; form-action 'none'"
    )
