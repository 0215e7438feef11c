"""`import csmae_hf`: quick, light, and whichever way round the Auto classes are imported, they know the classes."""

import subprocess
import sys

import pytest

HEAVY = (
    "pandas",
    "matplotlib",
    "faiss",
    "rasterio",
    "sklearn",
    "scipy",
    "datasets",
    "modeling_csmae",
    "transformers.modeling_utils",
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def test_the_import_brings_in_nothing_heavy_and_the_names_are_there_when_asked_for() -> None:
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    lines = run(
        f"import sys, csmae_hf; print({loaded}); print(sorted(set(csmae_hf.__all__) - set(dir(csmae_hf))));"
        "from csmae_hf import *; import modeling_csmae; print(CSMAEModel is modeling_csmae.CSMAEModel);"
        f"print([name for name in {HEAVY[:4]} if name in sys.modules])"
    ).splitlines()
    assert lines == ["[]", "[]", "True", "[]"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import csmae_hf

    with pytest.raises(AttributeError, match="'csmae_hf' has no attribute 'CSMAEModels'"):
        _ = csmae_hf.CSMAEModels


@pytest.mark.parametrize(
    "imports",
    [
        "import csmae_hf; from transformers import AutoModel, AutoImageProcessor, AutoConfig",
        "from transformers import AutoModel, AutoImageProcessor, AutoConfig; import csmae_hf",
        "import csmae_hf; from transformers import pipeline, AutoModel, AutoImageProcessor, AutoConfig",
        "import image_processing_csmae, modeling_csmae; from transformers import AutoModel, AutoImageProcessor, AutoConfig;"
        "import csmae_hf",
    ],
    ids=["package_first", "transformers_first", "pipeline", "everything_first"],
)
def test_the_auto_classes_know_the_classes(imports: str, tmp_path) -> None:
    code = f"""{imports}
import sys
from transformers import AutoModelForImageClassification, AutoModelForPreTraining, AutoProcessor
config = AutoConfig.for_model("csmae", hidden_size=32, num_attention_heads=2, image_size=30)
model = AutoModel.from_config(config)
model.save_pretrained({str(tmp_path)!r})
csmae_hf.CSMAEImageProcessor(size=30).save_pretrained({str(tmp_path)!r})
print(type(AutoModel.from_pretrained({str(tmp_path)!r})) is csmae_hf.CSMAEModel)
print(type(AutoModelForPreTraining.from_config(config)) is csmae_hf.CSMAEForPreTraining)
print(type(AutoModelForImageClassification.from_config(config)) is csmae_hf.CSMAEForImageClassification)
print(type(AutoProcessor.from_pretrained({str(tmp_path)!r})) is csmae_hf.CSMAEImageProcessor)
print(type(AutoImageProcessor.from_pretrained({str(tmp_path)!r})) is csmae_hf.CSMAEImageProcessor)
print(type(config) in AutoModel._model_mapping, AutoModel._model_mapping[type(config)] is csmae_hf.CSMAEModel)
"""
    assert run(code).split() == ["True"] * 7


def test_the_only_hook_in_pythons_own_import_waits_for_datasets_and_is_gone_after_it() -> None:
    ours = "[finder for finder in sys.meta_path if getattr(finder, '__module__', '').startswith('csmae')]"
    lines = run(
        f"import sys, csmae_hf; found = {ours}; print(len(found), found[0].find_spec('json'), found[0].find_spec('datasets.load'));"
        "from importlib.util import find_spec; print(find_spec('datasets').name, 'datasets' in sys.modules);"
        f"from datasets import Features; print({ours}, type(sys.modules['datasets'].__loader__).__name__);"
        "print(Features.from_dict({'s1': {'_type': 'CsmaeTile', 'sensor': 's1', 'bands': ['VV']}})['s1'].bands)"
    ).splitlines()
    assert lines == ["1 None None", "datasets False", "[] SourceFileLoader", "['VV']"]


def test_no_module_needs_what_only_posix_has() -> None:
    code = """
import builtins, importlib, pkgutil
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "readline"}
original = builtins.__import__

def without_posix(name, globals=None, *more, **named):
    if name.split(".")[0] in POSIX and "csmae" in (globals or {}).get("__name__", ""):
        raise ModuleNotFoundError(f"No module named {name!r}, asked for by {globals['__name__']}")
    return original(name, globals, *more, **named)

builtins.__import__ = without_posix
import csmae_hf
names = [module.name for module in pkgutil.walk_packages(csmae_hf.__path__, "csmae_hf.")]
for name in ["csmae_doctor", *names]:
    importlib.import_module(name)
print("csmae_hf.archive.folder" in names, "csmae_hf.app.page" in names)
"""
    assert run(code) == "True True"
