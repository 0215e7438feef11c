"""Names the markers of Transformers' own tests, which this project's strict markers would refuse."""

import pytest

MARKERS = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "torch_compile_test",
    "generate",
)


def pytest_configure(config: pytest.Config) -> None:
    """Register them; runs when this folder is collected."""
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: of Transformers' own common tests")
