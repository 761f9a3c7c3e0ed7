"""FiftyOne itself, run as a program: it opens a dataset, changes labels as one would in its App, and exports it again.

    python tests/support/fiftyone_session.py DATASET CHANGES OUT

In the last line it prints what it read, as JSON.

CHANGES is JSON: `{image_id: {label: yes | no | unknown}}`. FiftyOne keeps its datasets in MongoDB, whose server no
package index has: mongomock stands for it. All the rest is FiftyOne's own code.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import mongoengine
import mongomock
from mongomock.store import ServerStore

STORE = ServerStore()


class Client(mongomock.MongoClient):
    """A client of a database in memory, which all clients share. These attributes would be taken for databases."""

    _closed = False
    _opened = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(_store=STORE)

    def server_info(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return {"version": "7.0.4", "versionArray": [7, 0, 4, 0]}


def start() -> Any:
    """Return FiftyOne, connected to the database in memory."""
    import fiftyone
    import fiftyone.core.odm.database as database

    connect = mongoengine.connect
    database.pymongo.MongoClient = Client
    fiftyone.config.database_uri = "mongodb://localhost:27017"
    database.mongoengine.connect = lambda name, **_: connect(
        name, mongo_client_class=Client, uuidRepresentation="standard"
    )
    return fiftyone


def change(fiftyone: Any, sample: Any, decisions: dict[str, str]) -> None:
    """Decide about labels: one that is there gets a tag, one that is not is added, as a person adds it."""
    for label, decision in decisions.items():
        found = [
            each
            for field in ("tagllm", "tagllm_unknown")
            for each in sample[field].classifications
            if each.label == label
        ]
        for each in found:
            each.tags.append(decision)
        if not found and decision == "yes":
            sample["tagllm"].classifications.append(fiftyone.Classification(label=label))
    sample.save()


def labels(field: Any) -> list[Any]:
    return [[each.label, each.confidence, list(each.tags)] for each in field.classifications]


def main(dataset_dir: str, changes: str, out: str) -> dict[str, Any]:
    fiftyone = start()
    kind = fiftyone.types.FiftyOneDataset
    dataset = fiftyone.Dataset.from_dir(dataset_dir=dataset_dir, dataset_type=kind)
    read = [
        {
            "filepath": sample.filepath,
            "image_id": sample.image_id,
            "size": [sample.metadata.width, sample.metadata.height],
            "tags": sample.tags,
            "labels": labels(sample.tagllm),
            "unknown": labels(sample.tagllm_unknown),
        }
        for sample in dataset
    ]
    wanted = json.loads(changes)
    for sample in dataset:
        if sample.image_id in wanted:
            change(fiftyone, sample, wanted[sample.image_id])
    dataset.export(export_dir=out, dataset_type=kind, export_media=False)
    simple = {"dataset_type": fiftyone.types.FiftyOneImageClassificationDataset, "label_field": "tagllm"}
    dataset.export(export_dir=f"{out}.simple", export_media=False, include_confidence=True, **simple)
    return {"samples": read, "classes": dataset.classes}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
