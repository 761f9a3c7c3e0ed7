"""(8) to (10): shards against a folder, a million images in a thousand shards, remote shards with nothing to do."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import struct
import sys
import tarfile
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PHOTOS = 1_600  # in four shards
PLACES = ("tar", "parquet", "tar on S3", "parquet on S3")
SHARDS, PER_SHARD = 1_000, 1_000
REMOTE_SHARDS = 200

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]


def sources(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(8) images/s of `candidates` over shards, with synthetic answers, over those of a folder of the same images."""
    from tests.support.packing import files_below, packed

    folder = chosen.out / f"photos-{PHOTOS}"
    photos(folder, PHOTOS)
    megabytes = sum(map(len, files_below(folder).values())) / 1e6
    places = {"folder": str(folder)}
    for place in PLACES:
        shutil.rmtree(chosen.out / "packed" / place, ignore_errors=True)
        places[place] = packed(folder, place, chosen.out / "packed" / place, per_shard=PHOTOS // 4)
    rounds = []
    for _ in range(chosen.rounds):
        out = str(chosen.out / "sources.parquet")
        rounds.append({place: child("labeled", source, place, out)["seconds"] for place, source in places.items()})
    each = statistics.median(times["folder"] for times in rounds) / PHOTOS
    print(f"    {PHOTOS:,} images of {1000 * megabytes / PHOTOS:.0f} kB, {1000 * each:.1f} ms each")
    for place in PLACES:
        ratio = statistics.median(times["folder"] / times[place] for times in rounds)
        say(f"(8) {place} / folder, images/s (median of {len(rounds)})", f"{ratio:.2f}", ">= 0.9", ratio >= 0.9)


def listing(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(9) from the start to the first question over 1,000,000 images in tar shards, memory, and the idle rerun."""
    few, many = chosen.out / "tars-1", chosen.out / f"tars-{SHARDS}"
    tars(few, 1)
    tars(many, SHARDS)
    out = chosen.out / "listing.parquet"
    least = child("first_question", str(few), str(chosen.out / "listing-few.parquet"))
    found = child("first_question", str(many), str(out))
    seconds, more = found["seconds"], found["peak_mb"] - least["peak_mb"]
    images = SHARDS * PER_SHARD
    say(
        f"(9) {images:,} images in {SHARDS:,} tars: seconds to the first question",
        f"{seconds:.0f}",
        "<= 60",
        seconds <= 60,
    )
    say(f"(9) resident memory above that of {PER_SHARD:,} images (MB)", f"{more:.0f}", "<= 150", more <= 150)
    child("answered", str(many), str(out))
    idle = child("idle", str(many), str(out))
    if idle["asked"] or idle["ok"] != images:
        sys.exit(f"the rerun is not idle: {idle}")
    seconds = idle["seconds"]
    say(f"(9) a rerun over {images:,} images with nothing to do, seconds", f"{seconds:.1f}", "<= 10", seconds <= 10)


def remote(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(10) shards in a bucket that a rerun with nothing to do opens."""
    from tests.support.object_store import object_store
    from tests.support.packing import tar_of

    store = object_store()
    pixels = {f"{number}.png": pixel(number) for number in range(REMOTE_SHARDS)}
    shards = {f"data/{name}.tar": tar_of({name: data}) for name, data in pixels.items()}
    root = f"{store.bucket(shards)}/data"
    out = str(chosen.out / "remote.parquet")
    child("labeled", root, "tar on S3", out)
    before = len(store.opened(root))
    store.requests.clear()
    if child("idle", root, out)["ok"] != REMOTE_SHARDS or before != REMOTE_SHARDS:
        sys.exit("not every shard was labeled")
    opened = len(store.opened(root))
    say(f"(10) of {REMOTE_SHARDS} shards on S3, opened by an idle rerun", f"{opened}", "0", opened == 0)


def photos(folder: Path, count: int) -> None:
    """Write so many JPEG files of 640 x 480 pixels, unless they are there."""
    if (folder / f"{count - 1:05}.jpg").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(
            folder / f"{number:05}.jpg", quality=90
        )


def pixel(number: int) -> bytes:
    """Return a PNG file of one pixel; no other number below 2**24 has the same."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" + number.to_bytes(3, "big"), 1))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def tars(folder: Path, count: int) -> None:
    """Write so many tar files of PER_SHARD images of one pixel, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.tar"
        if path.exists():
            continue
        with tarfile.open(path.with_suffix(".new"), "w") as archive:
            for index in range(PER_SHARD):
                data = pixel(number * PER_SHARD + index)
                member = tarfile.TarInfo(f"{index:04}.png")
                member.size = len(data)
                archive.addfile(member, BytesIO(data))
        path.with_suffix(".new").rename(path)


def _job(source: str, out: Path, engine: Any) -> tuple[Any, Any]:
    from tagllm_cli.engines.factory import ModelOptions
    from tagllm_cli.pipeline.label.job import RunOptions
    from tagllm_cli.pipeline.label.jobs import candidates_job

    out.parent.mkdir(parents=True, exist_ok=True)
    recording = out.with_suffix(".jsonl")
    recording.touch()  # an empty one: it gives the model its name
    options = RunOptions(preflight=False)
    job = candidates_job(source, "voc", out, ModelOptions(replay=recording), options, arms=("cooccurring",))
    return replace(job, engine=lambda plan: engine), options


def _fresh(out: Path) -> Path:
    for old in (out, out.with_suffix(".evidence")):
        old.unlink(missing_ok=True)
    return out


def _engine(first: Callable[[], object] = lambda: None) -> Any:
    from tests.support.rule_engine import RuleEngine

    class Forgetful(RuleEngine):
        """Calls `first` before the first answer; keeps no list of what it was asked, which would grow."""

        async def ask(self, picture: Any, requests: Any) -> AsyncGenerator[Any]:
            if not self.usage().prompt_tokens:
                first()
            self.asked.clear()
            async for pair in super().ask(picture, requests):
                yield pair

    return Forgetful()


def labeled(source: str, place: str, out: str) -> dict[str, Any]:
    """Label a source from nothing; return the seconds that the run took, without starting Python."""
    from tagllm_cli.cli.console import Console
    from tagllm_cli.pipeline.label.run import run_job

    job, options = _job(source, _fresh(Path(out)), _engine())
    began = time.monotonic()
    summary = run_job(job, options, Console(quiet=True))
    return {"seconds": time.monotonic() - began, "ok": summary.rows.ok}  # type: ignore[union-attr]


def first_question(source: str, out: str) -> dict[str, Any]:
    """Interrupt labeling at the first question; return the seconds until then and the peak memory in MB."""
    from tagllm_cli.cli.console import Console
    from tagllm_cli.pipeline.label.run import run_job

    asked: list[float] = []

    def first() -> None:
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    job, options = _job(source, _fresh(Path(out)), _engine(first))
    try:
        run_job(job, options, Console(quiet=True))
    except Exception as error:
        print(error, file=sys.stderr)  # the table takes too long after a signal: it is not written
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": asked[0] - began, "peak_mb": peak}


def answered(source: str, out: str) -> dict[str, Any]:
    """Record answers about all images, as a run would, without opening one; then let a run write the table."""
    from tagllm_cli.cli.console import Console
    from tagllm_cli.labeling.candidates import Candidates
    from tagllm_cli.labeling.plan import Plan
    from tagllm_cli.pipeline.label.pending import RequestKeys
    from tagllm_cli.pipeline.label.run import run_job
    from tagllm_cli.records import ImageInfo, Response, digest16
    from tagllm_cli.store.evidence import Evidence

    job, options = _job(source, Path(out), _engine())
    with Evidence(job.evidence) as evidence:
        plan = Plan.from_json(evidence.meta("plan"))
        stage, keys = Candidates(plan), RequestKeys(plan.context())
        evidence.start_run("candidates", "bench")
        for number, (item, _) in enumerate(evidence.iter_items()):
            info = ImageInfo(digest16(pixel(number)), 1, 1)
            requests = stage.requests(item)
            evidence.set_info(item.image.id, info)
            for key in keys.keys(requests, info.fingerprint):
                evidence.record(key, Response("cat, dog"))
            evidence.set_completed(item.image.id, keys.requests_hash(requests))
            if number % 10_000 == 0:
                evidence.commit()
    summary = run_job(job, options, Console(quiet=True))
    return {"ok": summary.rows.ok}  # type: ignore[union-attr]


def idle(source: str, out: str) -> dict[str, Any]:
    """Run the command once more, as a process of its own."""
    from tests.bench.__main__ import timed

    command = ["candidates", source, "--vocab", "voc", "--arms", "cooccurring", "--out", out, "--json"]
    seconds, printed = timed(
        [sys.executable, "-m", "tagllm_cli", *command, "--replay", str(Path(out).with_suffix(".jsonl"))]
    )
    report = json.loads(printed)
    return {"seconds": seconds, "asked": report["asked"]["requests"], "ok": report["rows"]["ok"]}
