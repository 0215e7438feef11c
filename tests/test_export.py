"""What others make of the model: compiled graphs, exported programs, ONNX, and loads in other types or onto devices."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

SIZES = {
    "image_size": 12,
    "patch_size": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "multi_sensor_encoder_depth": 1,
    "cross_sensor_encoder_depth": 1,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}
BATCHES = (1, 2, 7)


def images_of(batch: int, *sensors: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    bands = {"s1": 2, "s2": 10}
    return {name: torch.randn(batch, bands[name], 12, 12, generator=generator) for name in sensors or bands}


def noise_of(batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return {sensor: torch.rand(batch, 16, generator=generator) for sensor in ("s1", "s2")}


@pytest.fixture
def encoder() -> CSMAEModel:
    torch.manual_seed(0)
    return CSMAEModel(CSMAEConfig(**SIZES)).eval()


# torch.compile


@pytest.fixture(autouse=True)
def _forget_compiled_graphs() -> None:
    torch._dynamo.reset()


def compiled(model: nn.Module) -> Any:
    """One graph or an error; without the code generation, which takes minutes and is not ours."""
    return torch.compile(model, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("sensors", [("s1",), ("s2",), ("s1", "s2")], ids="+".join)
def test_the_encoder_compiles_as_one_graph(encoder: CSMAEModel, sensors: tuple[str, ...]) -> None:
    images = images_of(3, *sensors)
    with torch.no_grad():
        torch.testing.assert_close(dict(compiled(encoder)(**images)), dict(encoder(**images)), atol=1e-6, rtol=1e-5)


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor | None]:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return gradients


@pytest.mark.slow
def test_a_training_step_compiles_as_one_graph_forward_and_backward() -> None:
    torch.manual_seed(0)
    model = CSMAEForPreTraining(CSMAEConfig(**SIZES)).train()
    outputs, gradients = [], []
    for run in (model, compiled(model)):
        output = run(**images_of(3), noise=noise_of(3))
        output.loss.backward()
        outputs.append(dict(output))
        gradients.append(gradients_of(model))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "fields",
    [
        {"decoder_type": "common", "masking": "identical", "cmr_target": "target", "norm_pixel_loss": True},
        {"masking": "disjoint", "mask_ratio": 0.3, "mde_weight": 1.0, "pooling": "token"},
    ],
    ids=["common-identical-target", "disjoint-mde-token"],
)
def test_pre_training_compiles_as_one_graph_with_masks_of_its_own(fields: dict[str, Any], training: bool) -> None:
    torch.manual_seed(0)
    model = CSMAEForPreTraining(CSMAEConfig(**SIZES, **fields)).train(training)
    outputs = []
    for run in (model, compiled(model)):
        torch.manual_seed(1)
        with torch.no_grad():
            outputs.append(dict(run(**images_of(3))))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


# torch.export and ONNX


class OneSensor(nn.Module):
    """The encoder of one sensor, tensor in and tensor out, as other runtimes want it."""

    def __init__(self, model: CSMAEModel, sensor: str):
        super().__init__()
        self.model = model
        self.sensor = sensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(**{self.sensor: images}).embeds[self.sensor]


def embeds_of(encoder: CSMAEModel, sensor: str, batch: int) -> torch.Tensor:
    with torch.no_grad():
        return encoder(**images_of(batch, sensor)).embeds[sensor]


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_one_sensors_encoder_exports_with_any_batch_size(encoder: CSMAEModel, sensor: str) -> None:
    images = images_of(3, sensor)[sensor]
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(OneSensor(encoder, sensor).eval(), (images,), dynamic_shapes=batch)
    for size in BATCHES:
        embeds = program.module()(images_of(size, sensor)[sensor])
        torch.testing.assert_close(embeds, embeds_of(encoder, sensor, size), atol=1e-6, rtol=1e-5)


def test_the_model_itself_exports_with_its_own_output_class(encoder: CSMAEModel) -> None:
    program = torch.export.export(
        encoder, (), images_of(3, "s2"), dynamic_shapes={"s2": {0: torch.export.Dim("batch")}}
    )
    output = program.module()(**images_of(5, "s2"))
    torch.testing.assert_close(output.embeds["s2"], embeds_of(encoder, "s2", 5), atol=1e-6, rtol=1e-5)


def test_the_model_exports_where_every_size_is_left_open(encoder: CSMAEModel) -> None:
    """As Transformers' exporters ask for it; sizes that the model fixes are found out on the way."""
    open_sizes = {"s2": dict.fromkeys(range(4), torch.export.Dim.AUTO)}
    program = torch.export.export(encoder, (), images_of(3, "s2"), dynamic_shapes=open_sizes)
    output = program.module()(**images_of(5, "s2"))
    torch.testing.assert_close(output.embeds["s2"], embeds_of(encoder, "s2", 5), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_one_sensors_encoder_in_onnx_gives_the_same_embeds(encoder: CSMAEModel, sensor: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"pip install {package}")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about packages it could also use
        torch.onnx.export(
            OneSensor(encoder, sensor).eval(),
            (images_of(3, sensor)[sensor],),
            tmp_path / "encoder.onnx",
            input_names=["images"],
            output_names=["embeds"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    session = runtime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    for size in BATCHES:
        (embeds,) = session.run(["embeds"], {"images": images_of(size, sensor)[sensor].numpy()})
        torch.testing.assert_close(torch.from_numpy(embeds), embeds_of(encoder, sensor, size), atol=1e-5, rtol=1e-5)


# Loads


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    CSMAEForPreTraining(CSMAEConfig(**SIZES)).save_pretrained(tmp_path)
    return tmp_path


def positions_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in model.named_buffers() if name.endswith("positions.table")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_a_load_in_half_precision_computes_in_it(folder: Path, dtype: torch.dtype) -> None:
    full = CSMAEForPreTraining.from_pretrained(folder).eval()
    half = CSMAEForPreTraining.from_pretrained(folder, dtype=dtype).eval()
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    with torch.no_grad():
        expected, output = full(**images_of(3)), half(**images_of(3))
    for sensor, embeds in output.embeds.items():
        assert embeds.dtype == dtype
        error = (embeds.float() - expected.embeds[sensor]).norm() / expected.embeds[sensor].norm()
        assert error < 0.02
    assert output.loss.dtype == torch.float32  # the losses are computed in it, whatever the model is in
    torch.testing.assert_close(output.loss, expected.loss, rtol=0.02, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_frozen_positions_come_back_at_every_load(folder: Path, dtype: torch.dtype) -> None:
    made, loaded = CSMAEForPreTraining(CSMAEConfig(**SIZES)), CSMAEForPreTraining.from_pretrained(folder, dtype=dtype)
    assert len(positions_of(loaded)) == 3  # the encoder's, and one of each decoder
    for name, table in positions_of(loaded).items():
        torch.testing.assert_close(table.float(), positions_of(made)[name], atol=4e-3, rtol=0)


def test_an_automatic_device_map_loads_the_same_model(folder: Path) -> None:
    plain, mapped = (CSMAEModel.from_pretrained(folder, **kwargs).eval() for kwargs in ({}, {"device_map": "auto"}))
    images = {name: value.to(mapped.device) for name, value in images_of(3).items()}
    with torch.no_grad():
        embeds = {sensor: value.cpu() for sensor, value in mapped(**images).embeds.items()}
        torch.testing.assert_close(embeds, plain(**images_of(3)).embeds, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_class", [CSMAEModel, CSMAEForPreTraining])
def test_what_does_not_fit_in_memory_runs_from_disk(folder: Path, tmp_path_factory, model_class: type) -> None:
    plain = model_class.from_pretrained(folder).eval()
    room = int(0.6 * sum(parameter.nbytes for parameter in plain.parameters()))
    mapped = model_class.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": room}, offload_folder=tmp_path_factory.mktemp("offload")
    ).eval()
    assert set(mapped.hf_device_map.values()) == {"cpu", "disk"}
    with torch.no_grad():
        torch.testing.assert_close(mapped(**images_of(3)).embeds, plain(**images_of(3)).embeds, atol=1e-6, rtol=1e-5)
