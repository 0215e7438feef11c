"""`csmae doctor` finds what is broken, in environments that are broken on purpose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import csmae_doctor as doctor
from csmae_doctor import Finding
from csmae_hf.commands.main import main


def test_this_environment_is_described_and_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for topic in (
        "python",
        "torch",
        "transformers",
        "cpu",
        "attention",
        "torchvision",
        "timm",
        "extra viz",
        "hub token",
    ):
        assert f"  {topic} " in said
    assert said.endswith("Nothing is broken.\n")


def test_a_token_is_said_to_be_there_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SecretSecretSecret")
    said = doctor.format_findings(doctor.examine_hub())
    assert "there is one" in said
    assert "Secret" not in said


def test_a_broken_torchvision_is_found_with_the_command_that_removes_it(tmp_path: Path) -> None:
    for name in ("torchvision", "timm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('operator {name}::nms does not exist')")
        (tmp_path / f"{name}-0.28.0.dist-info").mkdir()
        (tmp_path / f"{name}-0.28.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 0.28.0\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import csmae_doctor as d; sys.exit(d.main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def csmae(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, timeout=100
        )

    other = csmae("stats", str(tmp_path / "sample"), str(tmp_path / "out"))
    assert other.returncode == 2
    assert "csmae cannot start" in other.stderr, (
        "a broken torchvision takes Transformers down, so the test is of that case"
    )
    assert "`csmae doctor` says what is broken" in other.stderr
    run = csmae("doctor")
    assert run.returncode == 1, run.stderr
    assert "operator torchvision::nms does not exist" in run.stdout
    assert "-> pip uninstall torchvision" in run.stdout
    assert "-> pip uninstall timm" in run.stdout
    assert "To be mended: torchvision, timm." in run.stdout


def test_what_an_extra_lacks_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("rasterio", "lmdb") else known(name))
    extras = {finding.topic: finding for finding in doctor.examine_extras()}
    assert extras["extra geo"] == Finding("extra geo", "note", "lacks rasterio", "pip install 'rasterio>=1.3'")
    assert extras["extra viz"].level == "ok"
    core = {finding.topic: finding for finding in doctor.examine_versions()}
    assert core["lmdb"].level == "bad"
    assert core["lmdb"].remedy is not None
    assert core["lmdb"].remedy.startswith("pip install 'lmdb")


def test_too_old_a_version_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "5.3.9" if name == "transformers" else known(name))
    core = {finding.topic: finding for finding in doctor.examine_versions()}
    assert core["transformers"].level == "bad"
    assert "5.3.9" in core["transformers"].text


@pytest.mark.parametrize(
    ("version", "specifier", "enough"),
    [("2.13.0+cpu", ">=2.6", True), ("5.4.0", ">=5.4", True), ("5.10.1", ">=5.4", True), ("0.4.2", ">=0.4.3", False)],
)
def test_versions_are_compared_as_numbers(version: str, specifier: str, enough: bool) -> None:
    assert doctor._satisfies(version, specifier) is enough
