#!/usr/bin/env bash
# Finding: OpenVINO runs a float32 model in bfloat16 by itself, and returns float32.
#
# Versions: openvino 2026.4.1, numpy 2.4.6; a CPU that has bfloat16 (AVX512_BF16 or AMX).
# Guess: compile_model computes in the type of the model; half precision is asked for.
# Seen:  a float32 matrix product compiled for "CPU" without any option has INFERENCE_PRECISION_HINT bfloat16. The output is of type float32
#        and differs from the exact product by about 1e-2; with the hint f32 by about 5e-6.
# Why it matters here: embeds of one archive must come from one arithmetic. Built by PyTorch or ONNX Runtime and asked by OpenVINO (or built on
#        a machine without bfloat16 and asked on one with it), neighbours that lie close together change places, and no type or message
#        tells. Pass {"INFERENCE_PRECISION_HINT": "f32"}.
# This script fails if the default changes. On a CPU without bfloat16 it can see nothing, and says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet openvino==2026.4.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import openvino
from openvino import opset13

core = openvino.Core()
capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
print("openvino", openvino.__version__, capabilities)
if "BF16" not in capabilities:
    print("This CPU has no bfloat16: nothing to see here.")
    raise SystemExit(0)
random = np.random.default_rng(0)
weights = random.normal(size=(768, 768)).astype(np.float32) / 28
inputs = random.normal(size=(64, 768)).astype(np.float32)
exact = inputs.astype(np.float64) @ weights
images = opset13.parameter([-1, 768], np.float32)
model = openvino.Model([opset13.matmul(images, opset13.constant(weights), False, False)], [images])
largest = {}
for name, options in {"default": {}, "f32": {"INFERENCE_PRECISION_HINT": "f32"}}.items():
    compiled = core.compile_model(model, "CPU", options)
    outputs = compiled(inputs)[0]
    largest[name] = float(np.abs(outputs - exact).max())
    print(name, compiled.get_property("INFERENCE_PRECISION_HINT"), outputs.dtype, f"largest difference {largest[name]:.2g}")
    assert outputs.dtype == np.float32
assert largest["default"] > 1e-3, "Changed: without an option it computes in float32."
assert largest["f32"] < 1e-4, "Changed: with the hint f32 it does not compute in float32."
PYTHON
