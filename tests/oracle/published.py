"""torchvision's networks, which are plain Python over PyTorch."""

import pytest

torch = pytest.importorskip("torch")
try:
    import torchvision
except ImportError:
    pytest.skip("torchvision is not installed", allow_module_level=True)
except RuntimeError:
    from torch import library

    # Its usual wheel beside a PyTorch for CPUs: the compiled operators do not load, and the import
    # ends over two that no network here uses, unless somebody has declared them.
    for name in ("nms", "qnms"):
        schema = "(Tensor boxes, Tensor scores, float threshold) -> Tensor"
        library.define(f"torchvision::{name}", schema)
    import torchvision

models = torchvision.models
