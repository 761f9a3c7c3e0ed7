"""Let PyPI's torchvision, built for the CUDA build of torch, be imported beside the CPU build.

Its compiled operators cannot be loaded there, and importing it fails at the two that it takes for granted, `nms` and
`qnms`. They are declared here, without an implementation: the image transforms that processors use need none of them.
Beside a torchvision whose operators are loaded, as that of PyTorch's own CPU index, nothing is declared.

`make setup` puts this file into site-packages with a .pth file that imports it, so that every process has it, vLLM's
included. torch is not imported before torchvision is.
"""

import sys

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class OperatorDeclarer:
    """Finder on `sys.meta_path` that finds nothing, and declares the operators when torchvision asks for them."""

    _library = None  # what a Library declares goes when it is collected

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Return None: the other finders find the module. By now torchvision has tried to load its own operators."""
        if name == "torchvision._meta_registrations" and cls._library is None:
            import torch

            cls._library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in _OPERATORS:
                if not hasattr(torch.ops.torchvision, operator):
                    cls._library.define(operator + _SIGNATURE)


sys.meta_path.insert(0, OperatorDeclarer)
