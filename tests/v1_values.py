"""Values as BigEarthNet-MM v1 stores them, written by Python's own pickler from classes named as the original package's."""

import pickle
import types
from typing import Any

import numpy as np

from csmae_hf.bigearthnet import BAND_SIZE, S1_BANDS, S2_BANDS

V1_MODULES = {
    "merged_interface": ["BigEarthNet_S1_S2_Patch"],
    "s1_interface": ["BigEarthNet_S1_Patch"],
    "s2_interface": ["BigEarthNet_S2_Patch"],
    "band_interface": ["BenS1_Band", "BenS2_10mBand", "BenS2_20mBand", "BenS2_60mBand"],
}
BAND_CLASS = {120: "BenS2_10mBand", 60: "BenS2_20mBand", 20: "BenS2_60mBand"}


def some_bands(names: tuple[str, ...] = S1_BANDS + S2_BANDS, seed: int = 0) -> dict[str, np.ndarray]:
    """Random bands of the native sizes and types."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(-12, 5, (BAND_SIZE[name],) * 2).astype("<f4")
        if name in S1_BANDS
        else rng.integers(1, 10_000, (BAND_SIZE[name],) * 2, dtype="<u2")
        for name in names
    }


def make_classes() -> tuple[dict[str, types.ModuleType], dict[str, type]]:
    """The original package's classes in modules of its names, which the pickler looks for in `sys.modules`."""
    modules = {"bigearthnet_patch_interface": types.ModuleType("bigearthnet_patch_interface")}
    classes = {}
    for module_name, class_names in V1_MODULES.items():
        full_name = f"bigearthnet_patch_interface.{module_name}"
        modules[full_name] = types.ModuleType(full_name)
        for name in class_names:
            classes[name] = type(name, (), {"__module__": full_name, "__getstate__": lambda self: self.state})
            setattr(modules[full_name], name, classes[name])
    return modules, classes


class V1Writer:
    """Writes v1 values with Python's own pickler, from classes named as the original package's."""

    def __init__(self, classes: dict[str, type]):
        self.classes = classes

    def band(self, name: str, data: Any) -> Any:
        size = BAND_SIZE.get(name, 120)
        record = self.classes["BenS1_Band" if name in S1_BANDS else BAND_CLASS[size]]()
        fields = {"name": name, "spatial_resolution": 1200 // size, "data_shape": (size, size), "data": data}
        record.state = {
            "__dict__": fields,
            "__pydantic_extra__": None,
            "__pydantic_fields_set__": set(fields),
            "__pydantic_private__": None,
        }
        return record

    def patch(self, bands: dict[str, Any], **attributes: Any) -> Any:
        patches = {}
        for sensor, names in (("s1", S1_BANDS), ("s2", S2_BANDS)):
            stored = {f"band{n.removeprefix('B')}": self.band(n, bands[n]) for n in names if n in bands}
            patches[sensor] = self.classes[f"BigEarthNet_{sensor.upper()}_Patch"]()
            patches[sensor].state = {**stored, "bands": list(stored.values())}
        merged = self.classes["BigEarthNet_S1_S2_Patch"]()
        merged.state = {
            "s1_patch": patches["s1"],
            "s2_patch": patches["s2"],
            **attributes,
            "__stored_args__": attributes,
        }
        return merged

    def value(self, bands: dict[str, Any], protocol: int = 4, **attributes: Any) -> bytes:
        return pickle.dumps(self.patch(bands, **attributes), protocol=protocol)
