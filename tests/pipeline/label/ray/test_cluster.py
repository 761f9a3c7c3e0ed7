"""Workers on a Ray cluster: the same tables and evidence as in one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import EngineDiedError, ModelError, SourceError, StoppedRunError, TableError, UsageError
from tagllm_cli.pipeline.label.budget import Limits
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.ray import cluster
from tagllm_cli.pipeline.label.ray.options import RayOptions
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import SourceInfo
from tagllm_cli.store.evidence import Evidence
from tests.support.label_process import record
from tests.support.packing import packed
from tests.support.ray_cluster import SMALL
from tests.support.ray_engines import Crashing, Dying, Reached, Unloadable, lose_engine
from tests.support.rule_engine import RuleEngine
from tests.support.web_server import WebServer
from tests.support.workspace import Workspace, evidence_rows, recorded

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
IMAGES = 90
EACH = 4  # questions about an image in the first stage
VICTIM = 41


def both_tables(workspace: Workspace) -> tuple[bytes, bytes]:
    return workspace.out.read_bytes(), workspace.labels_out.read_bytes()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Both tables as this process makes them alone."""
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"), IMAGES)
    workspace.candidates()
    workspace.disambiguate()
    return workspace


@pytest.fixture
def workspace(tmp_path: Path, undisturbed: Workspace) -> Workspace:
    """The same images, and no table yet."""
    workspace = Workspace(tmp_path / "one")
    workspace.images, workspace.vocabulary = undisturbed.images, undisturbed.vocabulary
    return workspace


@pytest.fixture
def ray(ray_cluster: Any) -> RayOptions:
    return RayOptions(ray_cluster.address, workers=2, gpus_per_worker=0)


def assert_same(workspace: Workspace, undisturbed: Workspace) -> None:
    assert workspace.out.read_bytes() == undisturbed.out.read_bytes()
    assert recorded(workspace.out.with_suffix(".evidence")) == recorded(undisturbed.out.with_suffix(".evidence"))


def test_one_pass_leaves_the_tables_and_evidence_of_the_two_commands(
    workspace: Workspace, undisturbed: Workspace, ray: RayOptions
) -> None:
    first, second = workspace.both(ray=ray)
    assert (first.error, second and second.error) == (None, None)
    assert (first.stats.images, first.stats.asked) == (IMAGES, EACH * IMAGES)
    assert_same(workspace, undisturbed)
    assert workspace.labels_out.read_bytes() == undisturbed.labels_out.read_bytes()
    assert recorded(workspace.labels_out.with_suffix(".evidence")) == recorded(
        undisturbed.labels_out.with_suffix(".evidence")
    )


def test_shards_that_nobody_has_read_become_known_from_the_workers(tmp_path: Path, ray: RayOptions) -> None:
    local, remote = Workspace(tmp_path / "local", 23), Workspace(tmp_path / "remote")
    remote.vocabulary = local.vocabulary
    local.source = remote.source = packed(local.images, "tar on S3", tmp_path / "packed")
    local.candidates()
    summary = remote.candidates(ray=ray)
    assert (summary.error, summary.stats.shards) == (None, 5)
    assert_same(remote, local)


@pytest.mark.parametrize("death", ["process", "engine"])
def test_what_a_dead_worker_had_is_asked_elsewhere(
    tmp_path: Path, workspace: Workspace, undisturbed: Workspace, ray: RayOptions, death: str
) -> None:
    marker = tmp_path / "died"
    dying = Dying(after=IMAGES // 5, marker=marker)
    workspace.engine = dying if death == "process" else replace(dying, death=lose_engine)
    summary = workspace.candidates(ray=ray)
    assert marker.exists()
    assert summary.error is None
    assert EACH * IMAGES <= summary.stats.asked < 2 * EACH * IMAGES
    assert_same(workspace, undisturbed)


def test_an_image_that_kills_every_worker_is_a_failed_row(
    workspace: Workspace, undisturbed: Workspace, ray: RayOptions
) -> None:
    name, ray = f"{VICTIM:03d}.png", replace(ray, workers=1)
    workspace.engine = Dying(poison=frozenset({uuid_of(undisturbed, name)}))
    summary = workspace.candidates(ray=ray)
    assert summary.error is None
    rows = workspace.rows()
    assert {id_ for id_, row in rows.items() if row.status != "ok"} == {name}
    assert (rows[name].error or "").startswith("worker_died: 3 workers died")
    workspace.engine = RuleEngine()
    assert workspace.candidates().stats.asked == EACH
    assert workspace.out.read_bytes() == undisturbed.out.read_bytes()


def uuid_of(workspace: Workspace, name: str) -> str:
    """Return by which uuid engines know an image."""
    from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
    from tagllm_cli.sources.decode import decode

    image = decode((workspace.images / name).read_bytes(), DEFAULT_MAX_PIXELS)[1]
    assert image is not None
    return image.uuid


def test_a_node_that_is_gone_takes_no_image_with_it(
    tmp_path: Path, workspace: Workspace, undisturbed: Workspace, ray_cluster: Any, ray: RayOptions
) -> None:
    workspace.engine = Reached(pause=0.02, marker=tmp_path / "reached", capacity=8)
    node = next(each for each in ray_cluster.list_all_nodes() if each is not ray_cluster.head_node)

    def remove() -> None:
        wait_for(tmp_path / "reached")
        ray_cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        summary = workspace.candidates(ray=ray)
    finally:
        thread.join()
        ray_cluster.add_node(**SMALL)
    assert summary.error is None
    assert_same(workspace, undisturbed)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_cannot_load_the_model_ends_the_run_with_the_reason(
    workspace: Workspace, ray: RayOptions
) -> None:
    ray = replace(ray, workers=1)
    workspace.engine = Unloadable()
    with pytest.raises(ModelError, match="no weights in /models/none"):
        workspace.candidates(ray=ray)
    assert not workspace.out.exists()
    workspace.engine = Crashing()
    with pytest.raises(EngineDiedError, match="dies whenever it starts"):
        workspace.candidates(ray=ray)


class Elsewhere:
    """A source whose folder other machines do not have."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def describe(self) -> SourceInfo:
        return replace(self._source.describe(), uri="/mnt/only-here")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def test_a_worker_that_does_not_see_the_images_says_which_machine_and_which_path(
    workspace: Workspace, ray: RayOptions
) -> None:
    options = RunOptions(ray=replace(ray, workers=1))
    job = workspace.candidates_job(options)
    with pytest.raises(SourceError) as caught:
        run_job(replace(job, source=Elsewhere(job.source)), options, Silent())
    assert caught.value.message.startswith(f"{socket.gethostname()} cannot read /mnt/only-here")


def test_a_budget_of_requests_is_kept_to_and_the_run_goes_on(
    workspace: Workspace, undisturbed: Workspace, ray: RayOptions
) -> None:
    summary = workspace.candidates(ray=ray, limits=Limits(requests=150))
    assert isinstance(summary.error, StoppedRunError)
    assert (summary.stats.asked, "pending" in workspace.statuses().values()) == (150, True)
    assert workspace.candidates().stats.asked == EACH * IMAGES - 150
    assert workspace.out.read_bytes() == undisturbed.out.read_bytes()


def start(workspace: Workspace, address: str, *more: str) -> subprocess.Popen[str]:
    """Start a driver in a process of its own, whose workers are slow."""
    words = ["candidates", str(workspace.images), "--vocab", str(workspace.vocabulary), "--out", str(workspace.out)]
    words += ["--replay", "nothing", "--model-id", "rules", "--group-size", "5", "--ray", address]
    command = [sys.executable, "-m", "tests.support.ray_driver", *words, *more]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_leaves_what_was_answered(
    workspace: Workspace, undisturbed: Workspace, ray_cluster: Any, number: signal.Signals
) -> None:
    driver = start(workspace, ray_cluster.address, "--json")
    wait_for(workspace.out.with_suffix(".reached"))
    if number == signal.SIGKILL:
        while not answers(workspace):
            time.sleep(0.05)
    os.killpg(driver.pid, number)
    out, err = driver.communicate(timeout=60)
    if number == signal.SIGINT:
        assert driver.returncode == 130, err
        assert json.loads(out)["error"]["kind"] == "InterruptedRunError"
        assert {"ok", "pending"} == set(workspace.statuses().values())
    known = answers(workspace)
    assert 0 < known < EACH * IMAGES
    assert workspace.candidates().stats.asked == EACH * IMAGES - known  # with or without workers elsewhere
    assert_same(workspace, undisturbed)


def answers(workspace: Workspace) -> int:
    """Count the answers on record; a copy is looked at, as in tests/pipeline/label/test_resume.py."""
    copy = workspace.out.parent.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workspace.out.parent, copy)
    return int(evidence_rows(copy / workspace.out.with_suffix(".evidence").name, "SELECT count(*) FROM response")[0][0])


def test_the_second_driver_of_a_table_is_refused(workspace: Workspace, ray: RayOptions) -> None:
    job = workspace.candidates_job(RunOptions(ray=ray))
    workspace.out.parent.mkdir()
    with Evidence(job.evidence), pytest.raises(TableError, match="another"):
        workspace.candidates(ray=ray)


def test_the_command_prints_one_object_and_asks_nothing_when_it_is_done(
    tmp_path: Path, workspace: Workspace, undisturbed: Workspace, ray_cluster: Any
) -> None:
    recording = tmp_path / "answers.jsonl"
    record(undisturbed.images.parent, recording)
    words = ["candidates", str(workspace.images), "--vocab", str(workspace.vocabulary), "--out", str(workspace.out)]
    words += ["--replay", str(recording), "--model-id", "rules", "--group-size", "5", "--json"]
    command = [sys.executable, "-m", "tagllm_cli", *words, "--ray", ray_cluster.address]
    for asked in (EACH * IMAGES, 0):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["asked"]["requests"] == asked
        assert "Traceback" not in done.stderr
        assert ("connecting to Ray" in done.stderr) == (asked > 0)
    assert workspace.out.read_bytes() == undisturbed.out.read_bytes()


def test_without_ray_and_without_a_cluster_the_command_says_what_to_do(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        workspace.candidates(ray=RayOptions("127.0.0.1:1"))
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UsageError, match="timed out"):
        workspace.candidates(ray=RayOptions(f"127.0.0.1:{silent.getsockname()[1]}"))
    with WebServer({}) as web, pytest.raises(UsageError, match="is not Ray"):
        workspace.candidates(ray=RayOptions(web.url.removeprefix("http://")))
    with pytest.raises(UsageError, match="HOST:PORT"):
        workspace.candidates(ray=RayOptions("nowhere"))
    with pytest.raises(UsageError, match="Ray client"):
        workspace.candidates(ray=RayOptions("ray://127.0.0.1:10001"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught:
        workspace.candidates(ray=RayOptions("local"))
    assert "pip install 'tagllm[ray]'" in caught.value.hint
    assert not workspace.out.exists()
