"""`pip install tagllm` without extras: what needs no model in this process works; the rest names its extra."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.live import IMAGES
from tests.support.packing import files_below, shards_of
from tests.support.stub_server import stub_server
from tests.support.web_server import WebServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchmetrics", "vllm", "transformers", "huggingface_hub", "datasets", "pandas", "s3fs")


def closure(name: str) -> Iterator[Distribution]:
    """Yield the distributions that `pip install NAME` brings, without extras."""
    seen, waiting = set[str](), [Requirement(name)]
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            key = f"{wanted.name.lower().replace('_', '-')}[{extra}]"
            if key in seen:
                continue
            seen.add(key)
            found = distribution(wanted.name)
            if not extra:
                yield found
            needed = (Requirement(each) for each in found.requires or ())
            waiting += [each for each in needed if not each.marker or each.marker.evaluate({"extra": extra})]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the core dependencies alone, linked from the tests' environment."""
    home = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    packages = next((home / "lib").glob("python3.*")) / "site-packages"
    ours = Path(sysconfig.get_path("purelib"))
    for found in closure("tagllm"):
        tops = {path.parts[0] for path in found.files or () if path.parts[0] not in ("..", "__pycache__")}
        if found.metadata["Name"] == "tagllm":  # the rest of it leads to the checkout
            tops = {top for top in tops if top.endswith(".dist-info")}
        for top in tops:
            if not (packages / top).exists():
                (packages / top).symlink_to(ours / top)
    for folder in ("prompts", "vocab"):
        shutil.copytree(ROOT / folder, packages / "tagllm_cli" / "data" / folder)
    shutil.copytree(ROOT / "tagllm_cli", packages / "tagllm_cli", dirs_exist_ok=True)
    return home / "bin" / "python"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A few images and what is on them."""
    (tmp_path / "photos").mkdir()
    for path in sorted(IMAGES.rglob("*.jpg"))[:4]:
        shutil.copy(path, tmp_path / "photos")
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    (tmp_path / "truth.csv").write_text("image,label\n" + "".join(f"{name},cat\n" for name in names))
    return tmp_path


def tagllm(python: Path, folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Type a command in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAGLLM", "PYTHON"))}
    command = [str(python), "-m", "tagllm_cli", *line.split()]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)


def test_no_heavy_package_comes_with_the_core(python: Path) -> None:
    code = f"import importlib.util as u; print([name for name in {HEAVY!r} if u.find_spec(name)])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_both_stages_with_a_server_and_everything_after_them(python: Path, photos: Path) -> None:
    with stub_server("stub") as server:
        for line in (
            f"candidates photos --vocab voc --endpoint {server.url} --out c.parquet",
            f"disambiguate c.parquet --endpoint {server.url} --out l.parquet",
            "evaluate l.parquet --truth truth.csv --json",
            "export l.parquet --format coco --out labels.json",
            "export l.parquet --format hf --out dataset",
        ):
            done = tagllm(python, photos, line)
            assert done.returncode == 0, done.stderr
            if line.startswith("evaluate"):
                found = json.loads(done.stdout)
                assert (found["images"], 0 <= found["map"] <= 1) == (4, True)


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-7B-Instruct", str(ROOT / "tests" / "demo" / "model")])
def test_a_model_in_this_process_names_its_extra(python: Path, photos: Path, model: str) -> None:
    done = tagllm(python, photos, f"candidates photos --vocab voc --model {model} --out c.parquet")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "pip install 'tagllm[vllm]'" in done.stderr


def test_shards_on_a_web_server_need_nothing_more(python: Path, photos: Path) -> None:
    files = files_below(photos / "photos")
    shards = {f"/{name}": data for name, data in shards_of(files, "tar", 2).items()}
    with stub_server("stub") as server, WebServer(shards) as web:
        line = f"candidates {web.url}/{{00000..00001}}.tar --vocab voc --endpoint {server.url} --out c.parquet --json"
        done = tagllm(python, photos, line)
    assert (done.returncode, json.loads(done.stdout)["rows"]["ok"]) == (0, 4), done.stderr


@pytest.mark.parametrize(
    ("source", "extra"),
    [("s3://bucket/a", "s3"), ("gs://bucket/{0..9}.tar", "gs"), ("hf://datasets/me/a", "hf"), ("s3a://b/m.csv", "s3")],
)
def test_a_storage_names_its_extra(python: Path, photos: Path, source: str, extra: str) -> None:
    done = tagllm(python, photos, f"candidates {source} --vocab voc --endpoint http://127.0.0.1:9 --out c.parquet")
    assert (done.returncode, done.stdout) == (2, "")
    what, todo = done.stderr.splitlines()
    assert what.startswith(f"error: {source.partition(':')[0]}:// needs the package ")
    assert todo == f"pip install 'tagllm[{extra}]'"


def test_doctor_says_which_storages_work(python: Path, photos: Path) -> None:
    checks = json.loads(tagllm(python, photos, "doctor --json").stdout)["checks"]
    (storage,) = [check for check in checks if check["name"] == "storage"]
    assert (storage["detail"], storage["hint"]) == (
        "images on disk, https://; not s3://, gs://, hf://",
        "pip install 'tagllm[s3,gs,hf]'",
    )


@pytest.mark.parametrize("line", ["--help", "doctor", "vocab list", "candidates --help"])
def test_looking_around_needs_nothing_more(python: Path, photos: Path, line: str) -> None:
    done = tagllm(python, photos, line)
    assert (done.returncode, "Traceback" in done.stderr) in ((0, False), (1, False)), done.stderr
    assert done.stdout
