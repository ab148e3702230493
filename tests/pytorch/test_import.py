"""What is imported with `sparsehopfield.torch`."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

PROGRAM = """
import json, sys
import torch
before = {*sys.modules}
import sparsehopfield.torch
print(json.dumps([name for name in sys.modules if name not in before]))
"""


def test_compilers_are_not():
    """They take longer than torch itself, and threads of torch.distributed wait for objects that they leave behind."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    assert "sparsehopfield.torch.functional" in found
    assert [name for name in found if name in ("torch._dynamo", "torch._inductor", "torch.onnx")] == []
