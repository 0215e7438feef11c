"""Curves come from trainer_state.json alone, of a run at any moment; trackers are asked for, and have nothing that it lacks."""

import json
import shutil

import pytest
from watched_runs import history, run_tiny

from csmae_hf.commands.main import main
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training import plots
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.plots import find_state, plot_run, read_curves

ALL_CHARTS = {"losses", "eval_losses", "learning_rate", "retrieval", "effective_rank", "distances"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two looks and a tracker."""
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    folder = tmp_path_factory.mktemp("run")
    sample = generate_sample(folder / "sample", tiles=60, seed=3)
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "eyes_pictures": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
        return run_tiny(sample, folder / "out", report_to="tensorboard", **options)


def charts(monkeypatch, *arguments) -> dict[str, dict]:
    """The curves that are drawn, by file: names and values as the figures have them."""
    drawn = {}

    def catch(figure, path):
        lines = figure.axes[0].get_lines()
        drawn[path.stem] = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}
        return path

    monkeypatch.setattr(plots, "save_figure", catch)
    plot_run(*arguments)
    return drawn


def test_a_run_ends_with_its_curves(run):
    drawn = {path.stem for path in (run / "plots").glob("*.png")}
    assert drawn == ALL_CHARTS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "plots").iterdir())


def test_curves_are_the_logged_numbers(run, monkeypatch):
    log = history(run)
    drawn = charts(monkeypatch, run)
    training = [entry for entry in log if "loss" in entry]
    looks = [entry for entry in log if "eval_loss" in entry]
    assert drawn["losses"]["total"] == ([1, 2, 3, 4], [entry["loss"] for entry in training])
    names = ["total", "S1 from itself", "S2 from itself", "S2 from S1", "S1 from S2", "MIM, between sensors"]
    assert list(drawn["losses"]) == names
    assert drawn["eval_losses"]["S2 from S1"] == ([2, 4], [entry["eval_cmr_s1_s2"] for entry in looks])
    assert drawn["retrieval"]["S1 → S2"] == ([2, 4], [entry["eval_f1_of_means_s1_s2"] for entry in looks])
    assert set(drawn["retrieval"]) == {"S1 → S1", "S1 → S2", "S2 → S1", "S2 → S2", "mean of all", "random order"}
    assert drawn["learning_rate"]["learning rate"][1] == [entry["learning_rate"] for entry in training]
    assert set(drawn["distances"]) == {"spread S1", "spread S2", "alignment S1, S2", "gap S1, S2"}


def test_the_state_alone_is_enough_and_the_pictures_are_named(run, tmp_path, capsys):
    shutil.copy(run / "trainer_state.json", tmp_path)
    assert main(["plot", str(tmp_path), "--output", str(tmp_path / "pictures")]) == 0
    assert set(capsys.readouterr().out.split()) == {str(path) for path in (tmp_path / "pictures").iterdir()}
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == ALL_CHARTS
    assert main(["plot", str(tmp_path), "--format", "svg"]) == 0
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {f"{name}.svg" for name in ALL_CHARTS}


def test_of_a_run_that_still_trains_the_newest_whole_checkpoint_is_drawn(run, tmp_path, monkeypatch):
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        shutil.copy(run / f"checkpoint-{step}" / "trainer_state.json", tmp_path / f"checkpoint-{step}")
    assert find_state(tmp_path).parent.name == "checkpoint-4"
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4, "log_hist')
    assert find_state(tmp_path).parent.name == "checkpoint-2"
    assert charts(monkeypatch, tmp_path)["losses"]["total"][0] == [1, 2]


def test_a_step_logged_twice_counts_once(tmp_path):
    entries = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 9.0},
        {"step": 2, "loss": 2.0},
        {"step": 2, "train_loss": 5},
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": entries}))
    assert read_curves(tmp_path / "trainer_state.json") == {"loss": ([1, 2], [3.0, 2.0])}


def test_what_cannot_be_drawn_is_said(tmp_path, caplog):
    assert main(["plot", str(tmp_path)]) == 2
    assert "output_dir of a run" in caplog.text
    (tmp_path / "trainer_state.json").write_text('{"global_step": 1, "log_history": []}')
    with pytest.raises(ValueError, match="nothing to draw yet"):
        plot_run(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 1}')
    with pytest.raises(ValueError, match="no log_history"):
        plot_run(tmp_path)


def test_a_tracker_is_told_what_the_state_keeps_and_not_more(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (run.parent / "tensorboard").rglob("events.out.*")
    accumulator = EventAccumulator(str(events.parent)).Reload()
    told = {
        tag: [(each.step, each.value) for each in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }
    kept = read_curves(run / "trainer_state.json")
    for name, (steps, values) in kept.items():
        tag = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
        assert [step for step, _ in told[tag]] == steps
        assert [value for _, value in told[tag]] == pytest.approx(values, rel=1e-5)
    finals = {"train/epoch", "train/train_loss", "train/train_runtime", "train/train_samples_per_second"}
    finals |= {"train/train_steps_per_second", "train/total_flos"}
    assert {tag for tag in told if tag.startswith("train/")} <= finals | {f"train/{name}" for name in kept}


def test_trackers_are_off_unless_asked_for():
    assert parse_arguments([])[2].report_to == []
