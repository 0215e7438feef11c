"""docs/results.md, made of benchmarks/results/results.json alone: one table a question, what it says in words, commands folded.

    python -m benchmarks.results_page        write the page again, after a change of its words

The sentences below a table follow from its numbers: a difference is called one where its interval excludes 0.
"""

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from csmae_hf.evaluation.baselines import BAND_STATISTICS, LABELS_KNOWN, UNTRAINED
from csmae_hf.evaluation.tables import RANDOM_ORDER, Table
from csmae_hf.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "results.json"
PAGE = ROOT / "docs" / "results.md"

MODELS = {"cecd": "CSMAE-CECD", "cesd": "CSMAE-CESD", "secd": "CSMAE-SECD", "sesd": "CSMAE-SESD", "mae": "MAE pair"}

ACROSS, WITHIN = "across", "within"
GROUPS = {ACROSS: ("s1 -> s2", "s2 -> s1"), WITHIN: ("s1 -> s1", "s2 -> s2")}
"""Means over directions, by name."""

CHOSEN, NONE = "auto", "none"
"""Alignments that everything is measured with: the one that the training tiles ask for, and none."""

Content = Mapping[str, Any]


def format_page(content: Content) -> str:
    """Lay the results out as the page.

    Args:
        content: Of benchmarks/results/results.json. What was not run on generated tiles is left out.

    Returns:
        Markdown.
    """
    real, sample = (content["archives"].get(name) for name in ("real", "sample"))
    parts = [
        "# Results",
        _about(content, real),
        f"## How well do they retrieve on real tiles? (F1@{_k(real)})",
        _scores(real),
        _in_words(real),
        "## Which variant? (real tiles)",
        _compared(real, MODELS, ["cecd", "mae"]),
        _verdicts(real, ["cecd", "mae"]),
        "## Are they better than what needs no training? (real tiles)",
        _compared(real, MODELS, [UNTRAINED, BAND_STATISTICS]),
        _verdicts(real, [UNTRAINED, BAND_STATISTICS]),
        "## Does an alignment help? (real tiles)",
        _aligned(real),
    ]
    if sample is not None:
        parts += [
            f"## And on generated tiles? (F1@{_k(sample)})",
            _wrap(
                f"**Generated data**: synthetic scenes that no satellite took (`csmae sample`). {sample['queries']} queries of the "
                f"validation split search {sample['smallest_archive']} tiles of the test split; trained on the train split, "
                f"{_epochs(sample)}, {_seeds(sample)}; every tile is a scene of its own."
            ),
            _scores(sample),
            _verdicts(sample, [UNTRAINED, BAND_STATISTICS]),
        ]
    return "\n\n".join([*parts, _commands(content["archives"])]) + "\n"


def _k(archive: Content) -> int:
    return int(archive["setting"]["k"])


def _epochs(archive: Content) -> str:
    return f"{archive['setting']['epochs']} epochs"


def _seeds(archive: Content) -> str:
    count = len(archive["setting"]["seeds"])
    return f"mean of {count} seeds" if count > 1 else "1 seed"


def _wrap(text: str) -> str:
    """A paragraph or an item of a list in lines as long as the other pages'."""
    indent = "  " if text.startswith("* ") else ""
    lines = textwrap.wrap(text, 135, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _about(content: Content, real: Content) -> str:
    """What was done, and how to read it."""
    archives = content["archives"].values()
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    trainings, minutes = (sum(archive[name] for archive in archives) for name in ("trainings", "minutes"))
    paragraphs = [
        "**Own runs of tiny models: 3 encoder blocks of width 96, trained for a minute. They are not the paper's experiments, and "
        "none of these numbers may be set beside a published one.**",
        f"`{content['command']}` wrote this page, and `benchmarks/results/results.json`, of which every number and "
        f"sentence here is made, on {content['date']} ({versions}); its {trainings} trainings took {minutes:.0f} minutes on two "
        "cores that a dozen other programs used. Compared are the four variants of CSMAE and a uni-modal MAE for each sensor "
        "(`benchmarks/results/*.yaml`, which differ in the model only). Epochs and rates are those of this "
        "page's earlier version, which had one split of 30 queries. That the alignment is chosen over scenes was decided after a "
        "trial of one epoch on these tiles, in which a choice over tiles misled.",
    ]
    items = [
        f"* **Real tiles**: the {real['queries']} labelled BigEarthNet pairs that lie beside the development checkout (not part of "
        f"the repository; `benchmarks/real_archive.py`), of {real['scenes']} scenes. A scene is a pass: tiles of which either "
        "sensor's images were taken in one pass of a satellite are of one scene.",
        "* **Nothing is trained or chosen on a scene that is reported.** Scenes are dealt into two halves. A model is trained on one "
        f"half ({_epochs(real)}), its alignment fitted and chosen there, and it is measured on the other; another model the other way "
        "round. Every tile of a half is a query once, and searches the half's *other* scenes. The queries of the largest scene, "
        f"{real['largest_scene']} tiles, have {real['smallest_archive']} to search, the fewest. Numbers are of all {real['queries']} "
        f"queries, {_seeds(real)}; every seed has a dealing and trainings of its own. Bands are normalised by BigEarthNet's "
        "published means and deviations.",
        "* **F1** is the original's: of the mean precision and the mean recall over the first k results. **Across** is the mean of "
        "S1 → S2 and S2 → S1, **within** that of S1 → S1 and S2 → S2.",
        f"* **In brackets**: 95 % bootstrap intervals, {real['resamples']} resamples of whole scenes, the same for all entries, so "
        "that differences are paired. They say what other scenes would change, and nothing about other trainings. They are wide: "
        f"one scene has {real['largest_scene'] / real['queries']:.0%} of the queries. **Bold** differences have an interval without "
        "0; of twenty that are nothing one is bold by chance.",
        "* **Baselines**: *untrained* is the same model with random weights (variants that differ in the decoder only are one encoder "
        "then), *band statistics* the mean and standard deviation of each band, across sensors as least squares on the training half "
        "predicts them; *random order* its expectation; *labels known* a ranking by the labels themselves, which no encoder sees.",
    ]
    return "\n\n".join([*map(_wrap, paragraphs), "\n".join(map(_wrap, items))])


def _scores(archive: Content) -> str:
    """Every entry in every direction; entries that are one encoder are one row."""
    scores = archive["scores"][CHOSEN]
    directions = [name for name in next(iter(scores.values())) if name not in GROUPS]
    several = len(archive["setting"]["seeds"]) > 1
    rows: dict[str, list[str]] = {}
    for entry, by_direction in scores.items():
        cells = [_score(by_direction[name]) for name in (*directions, ACROSS)]
        spread = max(by_direction[ACROSS]["by_seed"]) - min(by_direction[ACROSS]["by_seed"])
        same = next(
            (n for n, other in rows.items() if entry.endswith(UNTRAINED) and other[: len(cells)] == cells), None
        )
        if same is not None:
            rows[f"{same.removesuffix(f', {UNTRAINED}')}, {_title(entry)}"] = rows.pop(same)
            continue
        rows[_title(entry)] = [*cells, *([f"{spread:.3f}"] if several else [])]
    order = [*MODELS.values(), *(name for name in rows if name not in MODELS.values())]
    titles = [name.upper().replace("->", "→") for name in directions]
    header = ["", *titles, "across", *(["across, seeds differ by"] if several else [])]
    return _table(header, [[name, *rows[name]] for name in order])


def _title(entry: str) -> str:
    model, _, kind = entry.partition(", ")
    return entry if model not in MODELS else MODELS[model] + (f", {kind}" if kind else "")


def _score(one: Content) -> str:
    return f"{one['f1']:.3f}" + (f" [{one['interval'][0]:.2f}, {one['interval'][1]:.2f}]" if "interval" in one else "")


def _difference(one: Content) -> str:
    mark = "**" if _sign(one) else ""
    return f"{mark}{one['f1']:+.3f}{mark} [{one['interval'][0]:+.3f}, {one['interval'][1]:+.3f}]"


def _sign(one: Content) -> int:
    """1 and -1 for a difference whose interval excludes 0, else 0."""
    lower, upper = one["interval"]
    return int(lower > 0) - int(upper < 0)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return Table(header, rows, []).markdown().rstrip("\n")


def _find(archive: Content, model: str, other: str, group: str) -> Content:
    """The difference of a model from another entry; `UNTRAINED` is its own."""
    other = f"{model}, {UNTRAINED}" if other == UNTRAINED else other
    found: Content = next(
        one for one in archive["differences"] if (one["model"], one["other"], one["direction"]) == (model, other, group)
    )
    return found


def _compared(archive: Content, models: Iterable[str], others: Sequence[str]) -> str:
    """Differences of models from others, across and within sensors."""
    header = ["F1, difference", *(f"{group}, less {MODELS.get(other, other)}" for group in GROUPS for other in others)]
    rows = [
        [
            MODELS[model],
            *(
                "-" if model == other else _difference(_find(archive, model, other, group))
                for group in GROUPS
                for other in others
            ),
        ]
        for model in models
    ]
    return _table(header, rows)


def _verdicts(archive: Content, others: Sequence[str]) -> str:
    """In words, which models are told apart from others: those whose interval excludes 0."""
    said = []
    for group in GROUPS:
        for other in others:
            models = [model for model in MODELS if model != other]
            signs = {model: _sign(_find(archive, model, other, group)) for model in models}
            name = {UNTRAINED: "itself untrained"}.get(other, MODELS.get(other, other))
            sides = [
                f"{word} than {name}: {_names(model for model in models if signs[model] == sign)}"
                for sign, word in ((1, "better"), (-1, "worse"))
            ]
            rest = [model for model in models if not signs[model]]
            said.append(f"* {group.capitalize()} sensors, {'; '.join(sides)}; not told apart: {_names(rest)}.")
    return "\n".join(map(_wrap, said))


def _names(models: Iterable[str]) -> str:
    return ", ".join(MODELS[model] for model in models) or "none"


def _in_words(archive: Content) -> str:
    """How the best model and the simple baselines stand, in words."""
    scores = archive["scores"][CHOSEN]
    said = []
    for group in GROUPS:
        best = max(MODELS, key=lambda model: scores[model][group]["f1"])
        statistics, mine = scores[BAND_STATISTICS][group]["f1"], scores[best][group]["f1"]
        more = ", more than any model" if statistics > mine else ""
        said.append(
            f"* {group.capitalize()} sensors {MODELS[best]} has the highest mean of the models, {mine:.3f}; band statistics have "
            f"{statistics:.3f}{more}, a random order {scores[RANDOM_ORDER][group]['f1']:.3f}, known labels "
            f"{scores[LABELS_KNOWN][group]['f1']:.3f}."
        )
    return "\n".join(map(_wrap, said))


def _aligned(archive: Content) -> str:
    """F1 across sensors without an alignment and with the chosen one, and which was chosen how often."""
    rows = []
    for gain in archive["gains_of_alignment"]:
        entry = gain["model"]
        scores = [_score(archive["scores"][alignment][entry][ACROSS]) for alignment in (NONE, CHOSEN)]
        chosen = archive["alignments"].get(entry, {})
        often = ", ".join(f"{count} x {name}" for name, count in sorted(chosen.items(), key=lambda one: -one[1]))
        rows.append([_title(entry), *scores, _difference(gain), often])
    kept = [row for place, row in enumerate(rows) if row[1:] not in [other[1:] for other in rows[:place]]]
    table = _table(["F1, across", "none", "chosen on the training half", "difference", "chosen"], kept)
    better, worse = (
        [_title(one["model"]) for one in archive["gains_of_alignment"] if _sign(one) == sign] for sign in (1, -1)
    )
    words = (
        f"* Better with it than without: {', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'}. The choice is "
        "cross-fitted over scenes of the training half, which the trained models have seen. An untrained row stands for the variants "
        "that share its encoder."
    )
    return f"{table}\n\n{_wrap(words)}"


def _commands(archives: Mapping[str, Content]) -> str:
    settings = [archive["setting"] for archive in archives.values()]
    seeds = sorted({seed for setting in settings for seed in setting["seeds"]})
    about = (
        f"MODEL is one of {', '.join(MODELS)}; SEED one of {', '.join(map(str, seeds))}; HALF, the one that is reported, one of "
        f"{', '.join(archives['real']['setting']['halves'])}; ALIGNMENT one of {CHOSEN}, {NONE}. `python -m benchmarks.results` "
        "runs them in one process, leaves out those that have finished, and pools what they measured."
    )
    made = {
        "real": "python -m benchmarks.real_archive runs/results/real",
        "sample": "csmae sample runs/results/sample --tiles 500",
    }
    lines = [line for name, archive in archives.items() for line in (made[name], *archive["commands"])]
    count = sum(archive["trainings"] for archive in archives.values())
    before = ["<details>", "<summary>The commands</summary>", "", _wrap(about), ""]
    block = [f"<!-- not run: {count} trainings of about a minute -->", "```console", *lines, "```"]
    return "\n".join([*before, *block, "", "</details>"])


def main() -> int:
    """Write the page."""
    write_atomically(PAGE, format_page(json.loads(RESULTS.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
