"""Transformers' own common model tests, run against this project's classes.

What they cannot say of a model whose outputs come by sensor is said here instead, under the same names; what does not
apply is listed in `skips.py` with its reason, and a test that skips itself without being listed there fails.
"""

import contextlib
import copy
import itertools
import unittest
import unittest.mock
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from transformers.models.auto import modeling_auto

import csmae_hf  # noqa: F401 (registers the Auto classes, which some common tests look up)
from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel, CSMAEPreTrainedModel

from .sdist import CommonTestsUnavailableError, load_common_tests, required
from .skips import reason_to_skip, unused_entries

try:
    ModelTesterMixin, ConfigTester = load_common_tests()
except CommonTestsUnavailableError as error:
    if required():
        raise
    pytest.skip(f"Transformers' common tests are not to be had: {error}", allow_module_level=True)

AUTO_CLASSES: tuple[tuple[dict[str, str], type[CSMAEPreTrainedModel]], ...] = (
    (modeling_auto.MODEL_MAPPING_NAMES, CSMAEModel),
    (modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES, CSMAEForPreTraining),
    (modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, CSMAEForImageClassification),
)
"""The tables by which the common tests know which class is a base model, and which has labels."""


class CSMAEModelTester:
    """A tiny model and a batch for it, in the form that the common tests ask for."""

    batch_size = 3
    is_training = True
    hidden_size = 32
    num_attention_heads = 4
    num_hidden_layers = 2
    image_size = 12
    patch_size = 3
    num_patches = 16

    def get_config(self) -> CSMAEConfig:
        return CSMAEConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            multi_sensor_encoder_depth=1,
            cross_sensor_encoder_depth=1,
            decoder_hidden_size=24,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=29,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[CSMAEConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        shape = (self.image_size, self.image_size)
        return config, {
            name: torch.randn(self.batch_size, len(bands), *shape) for name, bands in config.sensors.items()
        }


class LayersBySensor(dict[str, tuple[torch.Tensor, ...]]):
    """Hidden states by sensor that can also be asked for by layer, as other models' can: the sensors as one batch."""

    def __missing__(self, layer: int) -> torch.Tensor:
        return torch.cat([layers[layer] for layers in self.values()])


@contextlib.contextmanager
def hidden_states_by_layer_too() -> Iterator[None]:
    """Let every CSMAE model give out its hidden states as [`LayersBySensor`]."""

    def convert(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, CSMAEPreTrainedModel) and output.hidden_states is not None:
            output.hidden_states = LayersBySensor(output.hidden_states)

    handle = register_module_forward_hook(convert)
    try:
        yield
    finally:
        handle.remove()


class TestTransformersCommon(ModelTesterMixin, unittest.TestCase):
    """One test here is one of Transformers' own, for all classes of the model."""

    all_model_classes = tuple(model_class for _, model_class in AUTO_CLASSES)
    additional_model_inputs = ("s2",)
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True  # it goes by a copyright line, which our files do not have

    def setUp(self) -> None:
        self.model_tester = CSMAEModelTester()
        for names, model_class in AUTO_CLASSES:
            self.enterContext(unittest.mock.patch.dict(names, {"csmae": model_class.__name__}))
        if self._testMethodName.startswith("test_eager_matches_sdpa_inference"):
            self.enterContext(hidden_states_by_layer_too())

    def skipTest(self, reason: str) -> None:  # noqa: N802 (unittest's name)
        if reason_to_skip(self._testMethodName) is None:
            self.fail(f"It skips itself ({reason}) and is not listed in skips.py.")
        super().skipTest(reason)

    def _prepare_for_class(self, inputs_dict: dict, model_class: type, return_labels: bool = False) -> dict:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if isinstance(inputs.get("noise"), torch.Tensor):  # a masked autoencoder of one sensor would take it as it is
            inputs["noise"] = {"s1": inputs["noise"], "s2": inputs["noise"].flip(1)}
        return inputs

    def test_every_skip_is_listed_with_its_reason(self) -> None:
        tests = [name for name in dir(self) if name.startswith("test_") and callable(getattr(self, name))]
        skipped = [name for name in tests if getattr(getattr(self, name), "__unittest_skip__", False)]
        assert [name for name in skipped if reason_to_skip(name) is None] == []
        assert unused_entries(tests) == []

    def test_config(self) -> None:
        sizes = {"hidden_size": 32, "num_attention_heads": 4}  # one alone would not fit the default of the other
        ConfigTester(self, config_class=CSMAEConfig, has_text_modality=False, **sizes).run_common_tests()

    def test_determinism(self) -> None:
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            model = model_class(config).eval()
            with torch.no_grad(), self.subTest(model_class.__name__):
                first, second = model(**inputs), model(**inputs)
                torch.testing.assert_close(dict(first), dict(second), rtol=0, atol=0)

    def test_model_get_set_embeddings(self) -> None:
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(copy.deepcopy(config))
            assert list(model.get_input_embeddings()) == list(config.sensors)
            assert model.get_output_embeddings() is None

    def test_hidden_states_output(self) -> None:
        for model_class in self.all_model_classes:
            for output in self._outputs_asked_for(model_class, "output_hidden_states"):
                self._check_layers(model_class, output.hidden_states, self.model_tester.num_hidden_layers + 1)
                for sensor, states in output.hidden_states.items():
                    tokens = self._num_tokens(model_class)
                    assert states[-1].shape == (3, tokens, self.model_tester.hidden_size), sensor

    def test_attention_outputs(self) -> None:
        for model_class in self.all_model_classes:
            for output in self._outputs_asked_for(model_class, "output_attentions"):
                self._check_layers(model_class, output.attentions, self.model_tester.num_hidden_layers)
                for sensor, weights in output.attentions.items():
                    tokens = self._num_tokens(model_class)
                    assert weights[-1].shape == (3, self.model_tester.num_attention_heads, tokens, tokens), sensor
                    torch.testing.assert_close(weights[-1].sum(dim=-1), torch.ones_like(weights[-1][..., 0]))

    def test_retain_grad_hidden_states_attentions(self) -> None:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = CSMAEModel._from_config(config, attn_implementation="eager")
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
        first = {sensor: (output.hidden_states[sensor][0], output.attentions[sensor][0]) for sensor in config.sensors}
        for tensor in (tensor for pair in first.values() for tensor in pair):
            tensor.retain_grad()
        output.embeds["s1"].flatten()[0].backward()
        assert all(tensor.grad is not None for tensor in first["s1"])
        assert all(tensor.grad is None or not tensor.grad.any() for tensor in first["s2"])

    def test_enable_input_require_grads_with_gradient_checkpointing(self) -> None:
        """An adapter inside frozen, checkpointed blocks gets gradients: the blocks' input must require them."""
        for model_class, reentrant in itertools.product(self.all_model_classes, (False, True)):
            with self.subTest(model_class.__name__, reentrant=reentrant):
                config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
                model = model_class(config).train().requires_grad_(False)
                model.activation_checkpointing_enable({"use_reentrant": reentrant})
                model.enable_input_require_grads()
                adapter = model.base_model.cross_sensor_encoder.layers[0].mlp.fc2.weight.requires_grad_(True)
                output = model(**inputs)
                (output.embeds["s1"] + output.embeds["s2"])[:, 0].sum().backward()
                assert adapter.grad is not None
                assert adapter.grad.any()
                model.disable_input_require_grads()

    def _outputs_asked_for(self, model_class: type[CSMAEPreTrainedModel], name: str) -> Iterator[Any]:
        """Outputs of an eager model asked for something in the call, and then by its configuration."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for in_config in (False, True):
            model = model_class._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
            if in_config:
                setattr(model.config, name, True)
            with torch.no_grad(), self.subTest(model_class.__name__, in_config=in_config):
                yield model(**inputs) if in_config else model(**inputs, **{name: True})

    def _check_layers(self, model_class: type, by_sensor: Mapping[str, tuple], length: int) -> None:
        assert {sensor: len(layers) for sensor, layers in by_sensor.items()} == {"s1": length, "s2": length}

    def _num_tokens(self, model_class: type) -> int:
        hidden = self.model_tester.num_patches // 2 if model_class is CSMAEForPreTraining else 0
        return 1 + self.model_tester.num_patches - hidden
