"""Readers of exports as `test_conformance` compares them: the labels of each image id, and the number of each label."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tagllm_cli.text import undefused

Export = tuple[dict[str, list[str]], dict[str, int]]


def read_csv_long(out: Path) -> Export:
    found: dict[str, list[str]] = {}
    with out.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            labels = found.setdefault(undefused(row["image"]), [])
            if row["decision"] == "yes":
                labels.append(undefused(row["label"]))
    return found, {}


def read_csv_wide(out: Path) -> Export:
    with out.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    names = [undefused(name) for name in header[1:]]
    found = {
        undefused(line[0]): [name for name, cell in zip(names, line[1:], strict=True) if cell == "1"] for line in lines
    }
    return found, {name: number for number, name in enumerate(names)}


def read_numpy(out: Path) -> Export:
    with np.load(out, allow_pickle=False) as arrays:
        names = [str(name) for name in arrays["names"]]
        labels = zip(arrays["image_ids"], arrays["labels"], strict=True)
        found = {str(image): [names[place] for place in np.flatnonzero(row)] for image, row in labels}
        return found, dict(zip(names, arrays["label_ids"].tolist(), strict=True))


def read_parquet(out: Path) -> Export:
    return {row["image_id"]: row["labels"] for row in pq.read_table(out).to_pylist()}, {}


def read_imagefolder(out: Path) -> Export:
    lines = (line for path in sorted(out.rglob("metadata.jsonl")) for line in path.read_text().split("\n") if line)
    return {value["image_id"]: value["labels"] for value in map(json.loads, lines)}, {}


def read_webdataset(out: Path) -> Export:
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    value = json.loads(file.read())
                    found[value["image_id"]] = value["labels"]
    return found, {}
