"""The configuration: four variants by name or by fields, and no combination that cannot be built."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

import csmae_hf  # noqa: F401 (registers the Auto classes)
from configuration_csmae import DEFAULT_SENSORS, RESERVED_SENSOR_NAMES, SIZES, VARIANTS, CSMAEConfig
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

BASE_FIELDS = [  # variant, blocks of each sensor's own, shared blocks, decoder: the table of the paper
    ("cecd", 0, 12, "common"),
    ("cesd", 0, 12, "specific"),
    ("secd", 10, 2, "common"),
    ("sesd", 10, 2, "specific"),
]


@pytest.mark.parametrize(("variant", "own", "shared", "decoder"), BASE_FIELDS)
def test_variant_by_name_has_the_depths_and_decoder_of_the_paper(
    variant: str, own: int, shared: int, decoder: str
) -> None:
    config = CSMAEConfig.for_variant(variant)
    assert config.multi_sensor_encoder_depth == own
    assert config.cross_sensor_encoder_depth == shared
    assert config.decoder_type == decoder
    assert config.variant == variant


@pytest.mark.parametrize(("variant", "own", "shared", "decoder"), BASE_FIELDS)
def test_variant_by_fields_is_recognised_and_equals_the_one_by_name(
    variant: str, own: int, shared: int, decoder: str
) -> None:
    config = CSMAEConfig(multi_sensor_encoder_depth=own, cross_sensor_encoder_depth=shared, decoder_type=decoder)
    assert config.variant == variant
    assert config.to_dict() == CSMAEConfig.for_variant(variant).to_dict()


def test_default_is_sesd_base_on_the_two_sensors_of_the_paper() -> None:
    config = CSMAEConfig()
    assert config.to_dict() == CSMAEConfig.for_variant("SESD", size="base").to_dict()
    assert config.sensors == {
        "s1": ["VH", "VV"],
        "s2": ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A"],
    }
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (768, 12, 3072)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers) == (512, 8)
    assert (config.decoder_num_attention_heads, config.decoder_intermediate_size) == (16, 2048)
    assert (config.umr_weight, config.cmr_weight, config.mim_weight, config.mde_weight) == (1, 1, 1, 0)
    assert (config.masking, config.cmr_target, config.mask_ratio) == ("random", "source", 0.5)


@pytest.mark.parametrize(
    ("size", "width", "heads", "depth"),
    [("tiny", 192, 3, 12), ("small", 384, 6, 12), ("base", 768, 12, 12), ("large", 1024, 16, 24)],
)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_size_sets_width_heads_and_depth(variant: str, size: str, width: int, heads: int, depth: int) -> None:
    config = CSMAEConfig.for_variant(variant, size=size)
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (width, heads, 4 * width)
    assert config.num_hidden_layers == depth
    assert config.variant == variant


def test_overrides_win_over_variant_and_size() -> None:
    config = CSMAEConfig.for_variant("cecd", size="tiny", hidden_size=48, mask_ratio=0.75, decoder_type="specific")
    assert (config.hidden_size, config.intermediate_size, config.mask_ratio) == (48, 192, 0.75)
    assert config.variant == "cesd"


@pytest.mark.parametrize(
    "fields",
    [
        {"multi_sensor_encoder_depth": 12, "cross_sensor_encoder_depth": 0},
        {"sensors": {"s1": ["VH", "VV"]}},
    ],
    ids=["no shared block", "one sensor"],
)
def test_fields_of_none_of_the_four_variants_are_custom(fields: dict[str, Any]) -> None:
    assert CSMAEConfig(**fields).variant == "custom"


def test_configs_do_not_share_their_sensors() -> None:
    config = CSMAEConfig()
    config.sensors["s1"].append("HH")
    assert CSMAEConfig().sensors["s1"] == ["VH", "VV"]
    assert DEFAULT_SENSORS["s1"] == ["VH", "VV"]


def test_num_hidden_layers_is_own_and_shared_blocks_and_cannot_be_set() -> None:
    config = CSMAEConfig(multi_sensor_encoder_depth=3, cross_sensor_encoder_depth=4)
    assert config.num_hidden_layers == 7
    with pytest.raises(NotImplementedError, match="set multi_sensor_encoder_depth and cross_sensor_encoder_depth"):
        config.num_hidden_layers = 5
    with pytest.raises(NotImplementedError, match="num_hidden_layers=5"):
        CSMAEConfig.for_variant("sesd", num_hidden_layers=5)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "mask_ratio", "patches", "visible"),
    [
        (120, 15, 0.5, 64, 32),
        (120, 15, 0.75, 64, 16),
        (120, 15, 0.7, 64, 19),
        (60, 20, 0.5, 9, 4),
        (120, 15, 0, 64, 64),
    ],
)
def test_patch_counts_follow_the_rounding_of_the_original(
    image_size: int, patch_size: int, mask_ratio: float, patches: int, visible: int
) -> None:
    weights: dict[str, Any] = {} if mask_ratio else {"umr_weight": 0, "cmr_weight": 0}
    config = CSMAEConfig(image_size=image_size, patch_size=patch_size, mask_ratio=mask_ratio, **weights)
    assert config.num_patches == patches
    assert config.num_visible_patches == visible


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sensors": {}}, "sensors is empty"),
    ({"sensors": {"sentinel-1": ["VH"]}}, "Sensor name 'sentinel-1' cannot be an argument of forward"),
    ({"sensors": {"noise": ["VH"]}}, "Sensor name 'noise' cannot be"),
    ({"sensors": {"s1": []}}, r"sensors\['s1'\] = \[\] must name at least one band"),
    ({"sensors": {"s1": ["VH", "VH"]}}, "each band once"),
    ({"image_size": 0}, "image_size = 0 must be at least 1"),
    ({"patch_size": 0}, "patch_size = 0 must be at least 1"),
    ({"hidden_size": 0}, "hidden_size = 0 must be at least 1"),
    ({"num_attention_heads": 0}, "num_attention_heads = 0 must be at least 1"),
    ({"intermediate_size": 0}, "intermediate_size = 0 must be at least 1"),
    ({"decoder_hidden_size": -4}, "decoder_hidden_size = -4 must be at least 1"),
    ({"decoder_num_hidden_layers": 0}, "decoder_num_hidden_layers = 0 must be at least 1"),
    ({"decoder_num_attention_heads": 0}, "decoder_num_attention_heads = 0 must be at least 1"),
    ({"decoder_intermediate_size": 0}, "decoder_intermediate_size = 0 must be at least 1"),
    ({"image_size": 128}, "image_size = 128 is not a multiple of patch_size = 15"),
    (
        {"hidden_size": 768, "num_attention_heads": 10},
        "hidden_size = 768 is not a multiple of num_attention_heads = 10",
    ),
    (
        {"decoder_num_attention_heads": 7},
        "decoder_hidden_size = 512 is not a multiple of decoder_num_attention_heads = 7",
    ),
    ({"hidden_size": 6, "num_attention_heads": 3}, "hidden_size = 6 is not a multiple of 4"),
    ({"decoder_hidden_size": 6, "decoder_num_attention_heads": 3}, "decoder_hidden_size = 6 is not a multiple of 4"),
    ({"multi_sensor_encoder_depth": -1}, "multi_sensor_encoder_depth = -1 and"),
    ({"cross_sensor_encoder_depth": -1}, "cross_sensor_encoder_depth = -1 must not be negative"),
    ({"multi_sensor_encoder_depth": 0, "cross_sensor_encoder_depth": 0}, "not both 0"),
    ({"decoder_type": "shared"}, "decoder_type = 'shared': expected one of 'common', 'specific'"),
    ({"pooling": "max"}, "pooling = 'max': expected one of 'mean', 'token'"),
    ({"masking": "block"}, "masking = 'block': expected one of 'random', 'identical', 'disjoint'"),
    ({"cmr_target": "both"}, "cmr_target = 'both': expected one of 'source', 'target'"),
    ({"mask_ratio": 1}, r"mask_ratio = 1 must lie in \[0, 1\)"),
    ({"mask_ratio": -0.1}, r"mask_ratio = -0.1 must lie in \[0, 1\)"),
    ({"mask_ratio": float("nan")}, "mask_ratio = nan must lie"),
    ({"mask_ratio": 0.99}, "mask_ratio = 0.99 hides all 64 patches: at most 0.9844 leaves one visible"),
    ({"mask_ratio": 0}, "mask_ratio = 0 hides none of the 64 patches"),
    ({"mask_ratio": 0, "umr_weight": 0}, "hides none"),
    (
        {"mask_ratio": 0.02, "masking": "disjoint", "sensors": {"a": ["1"], "b": ["2"], "c": ["3"], "d": ["4"]}},
        "leaves 2 patches for 3 more sensors: raise mask_ratio",
    ),
    ({"mim_weight": -1}, "Loss weights must not be negative"),
    ({"umr_weight": 0, "cmr_weight": 0, "mim_weight": 0}, r"No loss is left to train with 2 sensor\(s\)"),
    ({"sensors": {"s1": ["VH", "VV"]}, "umr_weight": 0}, r"No loss is left to train with 1 sensor\(s\)"),
    ({"mim_temperature": 0}, "mim_temperature = 0 must be above 0"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[str(fields) for fields, _ in REFUSED])
def test_impossible_fields_are_a_plain_value_error_that_names_them(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        CSMAEConfig(**fields)
    assert type(caught.value) is ValueError


def test_every_argument_of_forward_and_processor_is_a_reserved_name() -> None:
    takers = (CSMAEModel.forward, CSMAEForPreTraining.forward, CSMAEImageProcessor.preprocess)
    arguments = {
        name
        for taker in takers
        for name, parameter in inspect.signature(taker).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    assert arguments - {"s1", "s2"} <= RESERVED_SENSOR_NAMES


@pytest.mark.parametrize("name", sorted(RESERVED_SENSOR_NAMES))
def test_names_that_forward_and_processor_use_themselves_cannot_be_sensors(name: str) -> None:
    with pytest.raises(ValueError, match=f"Sensor name '{name}'"):
        CSMAEConfig(sensors={name: ["VH"]})


def test_the_largest_ratio_that_leaves_a_patch_is_allowed_and_the_next_is_not() -> None:
    assert CSMAEConfig(mask_ratio=1 - 1 / 64).num_visible_patches == 1
    with pytest.raises(ValueError, match="hides all"):
        CSMAEConfig(mask_ratio=1 - 0.99 / 64)


def test_the_smallest_ratio_for_disjoint_masks_is_one_patch_for_each_further_sensor() -> None:
    sensors = {name: ["band"] for name in "abc"}
    assert CSMAEConfig(sensors=sensors, masking="disjoint", mask_ratio=2 / 64).num_visible_patches == 62
    with pytest.raises(ValueError, match="leaves 1 patches for 2 more sensors"):
        CSMAEConfig(sensors=sensors, masking="disjoint", mask_ratio=1 / 64)


@pytest.mark.parametrize(("variant", "size"), [("cedd", "base"), ("", "base"), ("sesd", "huge")])
def test_unknown_variant_or_size_is_refused_by_name(variant: str, size: str) -> None:
    with pytest.raises(ValueError, match=r"Unknown (variant|size) '.*': expected one of") as caught:
        CSMAEConfig.for_variant(variant, size=size)
    known = SIZES if variant in VARIANTS else VARIANTS
    assert all(name in str(caught.value) for name in known)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_saved_config_comes_back_the_same(variant: str, tmp_path: Path) -> None:
    config = CSMAEConfig.for_variant(
        variant,
        size="small",
        sensors={"s2": ["B04", "B03"], "s1": ["VV"], "thermal": ["T1", "T2", "T3"]},
        masking="disjoint",
        cmr_target="target",
        mask_ratio=0.75,
        norm_pixel_loss=True,
        pooling="token",
        mde_weight=0.25,
        mim_temperature=0.1,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is CSMAEConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    assert loaded.sensors["s2"] == ["B04", "B03"]
    assert loaded.variant == variant


def test_order_of_the_sensors_survives_saving(tmp_path: Path) -> None:
    """It decides whose masks `identical` and `disjoint` start from, and which optimizer state belongs to which weight."""
    config = CSMAEConfig(sensors={"s2": ["B04"], "thermal": ["T1"], "s1": ["VV"]})
    config.save_pretrained(tmp_path)
    assert list(CSMAEConfig.from_pretrained(tmp_path).sensors) == list(config.sensors)


def test_saved_config_names_the_class_of_every_auto_class(tmp_path: Path) -> None:
    CSMAEConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "csmae"
    assert saved["auto_map"] == {
        "AutoConfig": "configuration_csmae.CSMAEConfig",
        "AutoModel": "modeling_csmae.CSMAEModel",
        "AutoModelForPreTraining": "modeling_csmae.CSMAEForPreTraining",
        "AutoModelForImageClassification": "modeling_csmae.CSMAEForImageClassification",
        "AutoBackbone": "modeling_csmae.CSMAEBackbone",
    }


def test_auto_map_entries_of_others_are_kept() -> None:
    auto_map = {"AutoModelForImageClassification": "modeling_other.Other"}
    config: Any = CSMAEConfig.for_variant("sesd", auto_map=auto_map)
    assert config.auto_map["AutoModelForImageClassification"] == "modeling_other.Other"
    assert config.auto_map["AutoModel"] == "modeling_csmae.CSMAEModel"


def test_a_config_made_impossible_later_is_not_saved(tmp_path: Path) -> None:
    config = CSMAEConfig()
    config.masking = "block"
    with pytest.raises(Exception, match="masking = 'block'"):
        config.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("size", "width", "heads", "own", "shared"),
    [("tiny", 192, 3, 10, 2), ("small", 384, 6, 10, 2), ("base", 768, 12, 10, 2), ("large", 1024, 16, 20, 4)],
)
def test_every_size_has_its_width_heads_and_blocks(size: str, width: int, heads: int, own: int, shared: int) -> None:
    for variant in ("sesd", "secd"):
        config = CSMAEConfig.for_variant(variant, size=size)
        depths = (config.multi_sensor_encoder_depth, config.cross_sensor_encoder_depth)
        assert (config.hidden_size, config.num_attention_heads, *depths) == (width, heads, own, shared)
    for variant in ("cesd", "cecd"):
        config = CSMAEConfig.for_variant(variant, size=size)
        assert (config.multi_sensor_encoder_depth, config.cross_sensor_encoder_depth) == (0, own + shared)
