"""What every source owes: each image once, stable ids and order, exact bytes, named failures, the same when reopened.

A source joins the suite with one function in layouts.py that lays out FILES as a source of its kind.
"""

from __future__ import annotations

import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import SourceInfo
from tagllm_cli.sources.base import ReadFailure, Source, list_images, read_all, recall
from tagllm_cli.sources.registry import KINDS, open_source, reopen
from tests.sources.layouts import FILES, SOURCES, Laid


@pytest.fixture(params=SOURCES, ids=lambda each: each.__name__)
def laid(request: pytest.FixtureRequest, tmp_path: Path) -> Laid:
    return request.param(tmp_path)


def contents(source: Source) -> dict[str, bytes]:
    return {image.id: source.read(image) for image in list_images(source)}


def test_every_kind_is_tested(tmp_path: Path) -> None:
    assert {each(tmp_path / each.__name__).kind for each in SOURCES} == set(KINDS)


def test_every_image_comes_exactly_once_with_its_bytes(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    images = list(list_images(source))
    assert len({image.id for image in images}) == len(images) == len(FILES)
    assert sorted(map(source.read, images)) == sorted(FILES.values())


def test_ids_can_be_stored(laid: Laid) -> None:
    for image in list_images(open_source(laid.spec, laid.options, laid.format)):
        assert json.loads(json.dumps([image.id, image.uri])) == [image.id, image.uri]
        assert (image.id + image.uri).encode("utf-8")


def test_ids_order_and_versions_are_stable(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    first = list(list_images(source))
    assert list(list_images(source)) == list(list_images(open_source(laid.spec, laid.options, laid.format))) == first


def test_two_listings_at_once_do_not_disturb_each_other(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    pairs = list(zip(list_images(source), list_images(source), strict=True))
    assert [one for one, _ in pairs] == [other for _, other in pairs] == list(list_images(source))


def test_shards_come_in_the_order_of_their_names_and_hold_the_images(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    shards = list(source.shards())
    assert [shard.name for shard in shards] == sorted({shard.name for shard in shards})
    for shard in shards:
        for image in source.images(shard):
            assert image.shard == shard.name == source.shard_of(image.uri)


def test_streams_give_what_read_gives(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    images = list(list_images(source))
    assert [pair for shard in source.shards() for pair in source.stream(shard)] == [
        (image, source.read(image)) for image in images
    ]
    assert list(read_all(source, images[1::2])) == [(image, source.read(image)) for image in images[1::2]]


def test_threads_read_at_once(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    images = list(list_images(source))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, images * 5)) == [source.read(image) for image in images] * 5


def test_a_record_alone_is_enough_to_read(laid: Laid) -> None:
    """As `disambiguate` does: the table has id and uri, and nothing has been listed."""
    source = open_source(laid.spec, laid.options, laid.format)
    images = [
        recall(source, image.id, image.uri) for image in list_images(open_source(laid.spec, laid.options, laid.format))
    ]
    assert sorted(map(source.read, reversed(images))) == sorted(FILES.values())
    assert [data for _, data in read_all(source, images)] == list(map(source.read, images))


def test_an_image_that_vanished_is_a_read_failure(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    image = next(image for image in list_images(source) if source.read(image) == FILES["plain.jpg"])
    laid.vanish("plain.jpg")
    with pytest.raises(ReadFailure) as caught:
        source.read(image)
    assert (caught.value.kind, "\n" in caught.value.message) == ("vanished", False)
    assert len(list(list_images(source))) == len(FILES) - 1


def test_a_uri_that_was_never_listed_is_a_read_failure(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    image = next(list_images(source))
    for uri in ("nowhere.jpg", "../secret.jpg", "/etc/passwd", "a/../../b.jpg", "", ".", "\0", "//\\xff.jpg"):
        with pytest.raises(ReadFailure):
            source.read(dataclasses.replace(image, id=uri, uri=uri))


def test_what_is_located_is_the_file(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    for image in list_images(source):
        path = source.locate(image)
        if path is not None and os.path.isabs(path):
            assert Path(path).read_bytes() == source.read(image)


def test_reopening_gives_the_same_images(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    info = source.describe()
    assert info.kind == laid.kind
    stored = json.loads(json.dumps(dataclasses.asdict(info)))
    again = reopen(SourceInfo(**stored))
    assert list(list_images(again)) == list(list_images(source))
    assert contents(again) == contents(source)
    assert again.describe() == info


def test_reopening_a_source_that_moved(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    info, before = source.describe(), contents(source)
    moved = laid.move()
    with pytest.raises(SourceError) as caught:
        reopen(info)
    assert "--root" in caught.value.hint
    assert contents(reopen(info, moved)) == before
    offline = reopen(info, offline=True)
    assert offline.describe() == info
    with pytest.raises(SourceError):
        list(list_images(offline))


def test_what_is_left_out_is_known_after_a_complete_listing(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    assert source.left_out == {}
    list(islice(list_images(source), 3))
    assert source.left_out == {}
    for _ in range(2):
        list(list_images(source))
        assert dict(source.left_out) == laid.left_out


def test_a_source_without_an_image_is_an_error_that_helps(laid: Laid) -> None:
    for name in FILES:
        laid.vanish(name)
    with pytest.raises(SourceError, match="there are no images") as caught:
        list(list_images(open_source(laid.spec, laid.options, laid.format)))
    assert all(f"{count} {what}" in caught.value.hint for what, count in laid.left_out.items())
    assert "Known endings: " in caught.value.hint
