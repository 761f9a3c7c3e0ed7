"""COCO instances JSON, and LVIS, which says per image which labels were looked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile, united
from tagllm_cli.evaluation.truth.paths import suffixes
from tagllm_cli.text import shortened

_PARTS = ("images", "annotations", "categories")
_HINT = "A COCO instances file has `images`, `categories`, and `annotations` with an image_id and a category_id."


def recognizes(file: TruthFile) -> bool:
    """Return whether this is an object with parts of a COCO file, or the list of a COCO result file."""
    document = file.document
    if isinstance(document, list):
        return bool(document) and isinstance(document[0], dict) and {"image_id", "category_id"} <= document[0].keys()
    return isinstance(document, dict) and bool(set(_PARTS) & document.keys())


def read(file: TruthFile) -> Truth:
    """Read which category an image has an annotation of, crowds included.

    Annotations about images or categories that the file does not list, as subsets leave them over, are counted in a
    warning. Ids count as equal where they are written alike (`1`, `"1"`). Raises UsageError for another structure.
    """
    document = file.document
    if isinstance(document, list):
        raise file.error("this is a list of annotations without images and category names", _HINT)
    try:
        names = {str(category["id"]): str(category["name"]) for category in document["categories"]}
        images = {str(image["id"]): image for image in document["images"]}
        pairs = [(str(each["image_id"]), str(each["category_id"])) for each in document["annotations"]]
        keys = {number: _key(number, image) for number, image in images.items()}
        return _collected(file, names, images, keys, pairs)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise file.error(f"this is not a COCO instances file: {what}", _HINT) from error


def _key(number: str, image: Mapping[str, Any]) -> str:
    if image.get("file_name"):
        return str(image["file_name"])
    if image.get("coco_url"):  # LVIS: http://host/train2017/1.jpg
        return list(suffixes(str(image["coco_url"])))[-2:][0]
    return number


def _collected(
    file: TruthFile,
    names: Mapping[str, str],
    images: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, str],
    pairs: Iterable[tuple[str, str]],
) -> Truth:
    found = Collector()
    federated = any("neg_category_ids" in image for image in images.values())
    for number, image in images.items():
        found.add(keys[number])
        absent = (names[str(each)] for each in image.get("neg_category_ids") or () if str(each) in names)
        found.add(keys[number], absent, present=False)
    used = 0
    warnings = united(len(images) - len(found))
    no_image: dict[str, int] = {}
    no_category: dict[str, int] = {}
    for image_id, category in pairs:
        if image_id not in keys:
            no_image[image_id] = no_image.get(image_id, 0) + 1
        elif category not in names:
            no_category[category] = no_category.get(category, 0) + 1
        else:
            used += 1
            found.add(keys[image_id], [names[category]])
    if not used and (no_image or no_category):
        what, example = ("image", next(iter(no_image))) if no_image else ("category", next(iter(no_category)))
        raise file.error(f"no annotation is about what the file lists: there is no {what} {example!r}", _HINT)
    warnings += [
        f"annotations about {what} that the file does not list, left out: "
        f"{sum(missing.values()):,} ({'ids' if len(missing) > 1 else 'id'} {shortened(list(missing), 3)})"
        for what, missing in (("images", no_image), ("categories", no_category))
        if missing
    ]
    return found.truth(
        "LVIS JSON" if federated else "COCO instances JSON",
        names=tuple(names.values()),
        exhaustive=True,
        federated=federated,
        notes=["only annotated labels and those listed as absent are judged"] if federated else [],
        warnings=warnings,
    )


DIALECT = Dialect("COCO instances JSON", recognizes, read)
