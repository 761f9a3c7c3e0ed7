"""A reviewer who knows the truth: answers what a review asks first, and has the answers taken over into the table.

`review` writes them into a table without evidence; `decisions` saves them as the page does, for `tagllm import`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tagllm_cli.evaluation.report.subject import read_subject
from tagllm_cli.evaluation.review.create import ReviewOptions, choose
from tagllm_cli.evaluation.truth import load_truth, match_images
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.records import Decision
from tagllm_cli.store.table import open_table, write_table


def true_labels(truth: Path, images: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """Return what a truth says, by the table's names of images."""
    said = load_truth(truth)
    return {image: said.labels[key] for image, key in match_images(said, images).keys.items()}


def review(table: Path, truth: Path, answers: int, labels: Sequence[str] = ()) -> int:
    """Answer the first `answers` pairs of a review of the table, and write them into it; return how many there were."""
    opened = open_table(table)
    rows = list(opened.rows())
    true = true_labels(truth, [row.image_id for row in rows])
    pairs = choose(read_subject(table, None, ()), ReviewOptions(limit=answers, labels=labels)).pairs
    decisions: dict[str, dict[str, Decision]] = {}
    for image, label in pairs:
        decisions.setdefault(image, {})[label] = Decision.YES if label in true[image] else Decision.NO
    overlay = HumanOverlay(opened.info)
    write_table(table, opened.info, [overlay.row(row, decisions.get(row.image_id, {})) for row in rows])
    return len(pairs)


def decisions(page: Path, truth: Path, out: Path) -> int:
    """Answer all pairs of a review page by a truth, and save them as the page does; return how many there were."""
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    data = json.loads(text)
    images, labels = ([each["name"] for each in data[key]] for key in ("images", "labels"))
    true = true_labels(truth, images)
    about = {"tagllm_review": data["version"], "page": data["id"], "table": data["table"], "tool": data["tool"]}
    lines = [{**about, "pairs": len(data["pairs"]), "decisions": len(data["pairs"])}]
    for name, image, label, *_ in data["pairs"]:
        said = "yes" if labels[label] in true[images[image]] else "no"
        about = {"pair": name, "image": images[image], "label": labels[label], "decision": said, "who": "Ann"}
        shown = {"when": "2026-05-01T12:00:00.000Z", "fingerprint": data["images"][image]["fingerprint"]}
        lines.append({**about, **shown})
    out.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return len(data["pairs"])
