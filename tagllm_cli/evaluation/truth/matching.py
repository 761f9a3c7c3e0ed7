"""Which image and which label of the truth is which of the table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from tagllm_cli.evaluation.truth import paths
from tagllm_cli.evaluation.truth.base import Truth
from tagllm_cli.evaluation.truth.names import NameIndex
from tagllm_cli.vocabulary.model import Vocabulary


@dataclass(frozen=True, slots=True)
class NameMatch:
    """Label names of the truth as names of the vocabulary, and the names of either side that the other lacks."""

    in_vocabulary: Mapping[str, str]
    not_in_vocabulary: tuple[str, ...]
    not_in_truth: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageMatch:
    """Image ids of the table with the truth's key of the same image, and the images that the other side lacks.

    `by_file_name`: all that was matched lies in other folders, or has another file format.
    """

    keys: Mapping[str, str]
    not_in_table: tuple[str, ...]
    not_in_truth: tuple[str, ...]
    by_file_name: bool = False

    @property
    def overlap(self) -> float:
        """The share of the truth's images that the table has, in [0, 1]."""
        return len(self.keys) / max(1, len(self.keys) + len(self.not_in_table))


def match_names(truth: Truth, vocabulary: Vocabulary) -> NameMatch:
    """Match label names: exactly, else with case, spaces, hyphens and underscores left aside, else by synonym.

    A form that several labels claim matches nothing.
    """
    index = NameIndex(vocabulary)
    found = {name: own for name in truth.names if (own := index.find(name)) is not None}
    reached = set(found.values())
    missing = tuple(name for name in vocabulary.names if name not in reached)
    return NameMatch(found, tuple(name for name in truth.names if name not in found), missing)


# Spellings of a path, the closest first.
_FORMS: Sequence[Callable[[str], str]] = (
    paths.normalized,
    lambda name: paths.without_ending(paths.normalized(name)),
    paths.folded,
    lambda name: paths.without_ending(paths.folded(name)),
    paths.without_zeros,
)


def match_images(truth: Truth, ids: Collection[str]) -> ImageMatch:
    """Match the table's image ids with the truth's keys, one to one.

    The id itself counts first; else one path is the end of the other (`val/1.jpg`, `/data/val/1.jpg`), as it stands
    (in NFC), without the ending of an image file, in any case, without leading zeros (`42`, `000042.jpg`); next, in the
    same way, the path inside a shard, for keys that name no shard. Only where that finds no image at all, folders and
    file formats that differ are left aside. What could be matched in two ways is not matched.
    """
    keys = truth.labels
    matched = {image: image for image in ids if image in keys}
    by_file_name = False
    if len(matched) not in (len(ids), len(keys)):
        some_ids, some_keys = _of_shared_names(ids, keys)
        matched = _by_name(some_ids, some_keys, matched)
        if not matched:
            matched = _by_file_name(some_ids, some_keys)
            by_file_name = bool(matched)
    matched = {image: matched[image] for image in ids if image in matched}
    taken = set(matched.values())
    vanished = tuple(key for key in keys if key not in taken)
    return ImageMatch(matched, vanished, tuple(image for image in ids if image not in matched), by_file_name)


def _of_shared_names(ids: Collection[str], keys: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the images and keys whose bare file name the other side has, too: no others match in any spelling."""
    bare_ids, bare_keys = ([paths.bare_name(name) for name in names] for names in (ids, keys))
    shared = set(bare_ids) & set(bare_keys)
    return (
        [name for name, bare in zip(ids, bare_ids, strict=True) if bare in shared],
        [name for name, bare in zip(keys, bare_keys, strict=True) if bare in shared],
    )


def _by_name(ids: Collection[str], keys: Collection[str], exact: Mapping[str, str]) -> dict[str, str]:
    matched = dict(exact)
    for form in _FORMS:
        if len(matched) in (len(ids), len(keys)):
            break
        matched |= _by_suffix(ids, keys, form, matched)
    if any(map(paths.is_in_shard, ids)):
        matched |= _without_shards(ids, keys, matched)
    return matched


def _by_file_name(ids: Collection[str], keys: Collection[str]) -> dict[str, str]:
    named = (lambda name, form=form: paths.file_name(form(name)) for form in _FORMS)
    return next((found for form in named if (found := _by_form(ids, keys, form))), {})


def _without_shards(ids: Collection[str], keys: Collection[str], matched: Mapping[str, str]) -> dict[str, str]:
    """Return new pairs of images in shards and keys without a shard: `0.tar/val/1.jpg` is `/data/val/1.jpg`."""
    found = dict(matched)
    outside = [key for key in keys if not paths.is_in_shard(key)]
    for form in _FORMS:
        if len(found) in (len(ids), len(keys)):
            break
        found |= _by_suffix(ids, outside, _inside(form), found)
    return {image: key for image, key in found.items() if image not in matched}


def _inside(form: Callable[[str], str]) -> Callable[[str], str]:
    return lambda name: paths.in_shard(form(name))


def _by_suffix(
    ids: Collection[str], keys: Collection[str], form: Callable[[str], str], matched: Mapping[str, str]
) -> dict[str, str]:
    """Return new pairs; what is matched already still counts where a form is ambiguous."""
    taken = set(matched.values())
    id_forms, key_forms = ({name: form(name) for name in names} for names in (ids, keys))
    ids_by, keys_by = _grouped(id_forms), _grouped(key_forms)
    new_ids = ((image, path) for image, path in id_forms.items() if image not in matched)
    new_keys = ((key, path) for key, path in key_forms.items() if key not in taken)
    found = _one_to_one(_alike(new_ids, keys_by), ((image, key) for key, image in _alike(new_keys, ids_by)))
    return {image: key for image, key in found.items() if image not in matched and key not in taken}


def _alike(forms: Iterable[tuple[str, str]], named: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield each name with those of the other side that the longest known end of its path stands for."""
    for name, path in forms:
        for end in paths.suffixes(path):
            if end in named:
                yield from ((name, other) for other in named[end] if not paths.endings_differ(name, other))
                break


def _by_form(ids: Collection[str], keys: Collection[str], form: Callable[[str], str]) -> dict[str, str]:
    ids_by, keys_by = (_grouped({name: form(name) for name in names}) for names in (ids, keys))
    shared = ids_by.keys() & keys_by.keys()
    return {ids_by[name][0]: keys_by[name][0] for name in shared if len(ids_by[name]) == len(keys_by[name]) == 1}


def _grouped(forms: dict[str, str]) -> Mapping[str, Sequence[str]]:
    """Return the names by form, two of each at most: enough to see that a form decides nothing."""
    last = {form: name for name, form in forms.items()}
    if len(last) == len(forms):
        return dict(zip(last, zip(last.values(), strict=True), strict=True))
    first = {form: name for name, form in reversed(forms.items())}
    return {form: (name,) if name == last[form] else (name, last[form]) for form, name in first.items()}


def _one_to_one(*pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs whose image and key are in no other pair; the same pair may come twice."""
    key_of: dict[str, str] = {}
    image_of: dict[str, str] = {}
    ambiguous: set[str] = set()  # images
    for image, key in chain(*pairs):
        first_key, first_image = key_of.setdefault(image, key), image_of.setdefault(key, image)
        if first_key != key or first_image != image:
            ambiguous |= {image, first_image}
    return {image: key for image, key in key_of.items() if image not in ambiguous}
