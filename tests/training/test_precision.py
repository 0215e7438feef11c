"""Which precision is chosen."""

import pytest
import torch

from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.precision import choose_precision, cpu_is_fast_at_bf16


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_computes_in_bf16_only_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: {"avx2": True, "avx512_bf16": fast, "cpu_name": "some bf16 thing"},
        raising=False,
    )
    assert cpu_is_fast_at_bf16() == fast
    assert choose_precision("auto", "cpu") == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or including_emulation
    )
    assert choose_precision("auto", "cuda") == expected


def test_the_launchers_choice_counts_unless_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert choose_precision("auto", "cpu") == "bf16"
    _, _, training = parse_arguments(["--precision", "fp32"])
    assert (training.precision, training.bf16, training.mixed_precision) == ("fp32", False, "no")


def test_transformers_own_options_are_understood() -> None:
    _, _, training = parse_arguments(["--bf16", "--use_cpu"])
    assert (training.precision, training.bf16) == ("bf16", True)
    with pytest.raises(ValueError, match="contradicts --bf16"):
        parse_arguments(["--bf16", "--precision", "fp32"])


def test_fp16_on_a_cpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"needs a GPU.*bf16, fp32 or auto"):
        choose_precision("fp16", "cpu")
    with pytest.raises(ValueError, match="must be one of auto, bf16"):
        choose_precision("int8", "cpu")
