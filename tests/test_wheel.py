"""The built wheel, installed into an environment of its own, finds its prompts and vocabularies inside the package."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LOOK = """
import json
from tagllm_cli.resources import folder
print(json.dumps({kind: [str(path) for path in folder(kind).iterdir()] for kind in ("prompts", "vocab")}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds nothing but the wheel; its dependencies are borrowed from the tests' environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = folder.glob("tagllm-*.whl")
    home = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    # A line of a .pth file adds a folder at the end of the path, and the .pth files in there (ours) are not read.
    _packages(home).joinpath("borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def _packages(home: Path) -> Path:
    return next((home / "lib").glob("python3.*")) / "site-packages"


def test_data_is_found_inside_the_package(installed: Path) -> None:
    python = installed / "bin" / "python"
    done = subprocess.run([python, "-c", LOOK], cwd=installed, check=True, stdout=subprocess.PIPE)
    found = {kind: [Path(path) for path in paths] for kind, paths in json.loads(done.stdout).items()}
    for kind, paths in found.items():
        assert {path.parent for path in paths} == {_packages(installed) / "tagllm_cli" / "data" / kind}
        assert {path.name for path in paths} == {path.name for path in (ROOT / kind).iterdir()}


def test_pages_come_with_their_templates(installed: Path) -> None:
    package = _packages(installed) / "tagllm_cli"
    endings = ("*.html", "*.css", "*.js")
    templates = {path.relative_to(ROOT) for each in endings for path in (ROOT / "tagllm_cli").rglob(each)}
    assert len(templates) > 3
    assert {path for path in templates if not package.parent.joinpath(path).is_file()} == set()


def test_nothing_lies_loose_beside_the_package(installed: Path) -> None:
    names = {path.name for path in _packages(installed).iterdir()} - {"borrowed.pth", "__pycache__"}
    assert {name.partition("-")[0] for name in names} == {"tagllm_cli", "tagllm"}


def test_the_command_is_installed(installed: Path) -> None:
    command = [str(installed / "bin" / "tagllm"), "vocab", "list"]
    done = subprocess.run(command, cwd=installed, check=True, stdout=subprocess.PIPE, text=True)
    assert "scenes" in done.stdout
