"""An archive to the Hub and back, by the real client over HTTP."""

import json
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive.test_folder import make_archive
from huggingface_hub import DatasetCard

from csmae_hf.archive.folder import save_archive
from csmae_hf.hub.archives import for_publication, make_card

PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from huggingface_hub import DatasetCard, HfApi
from csmae_hf.archive.archive import Archive
from csmae_hf.hub.archives import pull_archive, push_archive

folder, other = sys.argv[1:]
archive = Archive.load(folder)
archive.use_index("faiss")
first = push_archive(archive, "tester/archive", license="mit")
found = pull_archive("tester/archive")
assert found.ids == archive.ids
assert (found.vectors["s2"][:] == archive.vectors["s2"][:]).all()
assert found.indexes["s2"].backend == "faiss"
assert found.search("tile_0_3", sensor="s2").ids == archive.search("tile_0_3", sensor="s2").ids
before = HfApi().repo_info("tester/archive", repo_type="dataset").sha
assert HfApi().repo_info("tester/archive", repo_type="dataset").private
assert first.endswith(f"datasets/tester/archive/commit/{before}")
DatasetCard.load("tester/archive").validate()
push_archive(Archive.load(other), "tester/archive")
assert pull_archive("tester/archive").ids == Archive.load(other).ids
assert pull_archive("tester/archive", revision=before).ids == archive.ids
files = HfApi().list_repo_files("tester/archive", repo_type="dataset")
try:
    pull_archive("tester/nothing")
except FileNotFoundError as error:
    missing = str(error)
commits = [commit.title for commit in HfApi().list_repo_commits("tester/archive", repo_type="dataset")]
print(json.dumps({"files": files, "missing": missing, "commits": commits}))
"""


def test_an_archive_is_published_in_one_commit_and_found_again(hub, tmp_path):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    folders = [str(make_archive(seed).save(tmp_path / f"archive{seed}")) for seed in (0, 1)]
    environment = hub.env(tmp_path / "home")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *folders],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    assert len([name for name in said["files"] if name != ".gitattributes"]) == 5, (
        "files of the archive before are gone"
    )
    assert {"README.md", "archive.json", "geoparquet/s2.parquet"} < set(said["files"])
    assert said["commits"].count("Upload archive") == 2
    assert "No dataset repository tester/nothing" in said["missing"]
    assert "someone/model" not in result.stderr, "a model's name on the Hub needs no warning"


def test_the_card_names_the_table_for_the_viewer_and_no_folder_of_this_machine(tmp_path):
    archive = make_archive()
    places = {"data": "../../home/somebody/tiles", "splits": "~/x.csv", "metadata": ["/home/somebody/m.csv"]}
    archive.source = {"data": "/home/somebody/tiles", "split": "train", "added": [{**places, "subset": "a/b"}]}
    archive.identity = replace(archive.identity, model=str(tmp_path))
    archive.unreadable = {
        "a": "/home/somebody/x/a_B02.tif: not 12/60 pixels",
        "b": "in '../../home/me/t.lmdb', see C:\\me\\t",
    }
    folder = save_archive(for_publication(archive), tmp_path / "archive")
    manifest = json.loads((folder / "archive.json").read_text())
    card = make_card(archive, "someone/archive", manifest, "cc-by-4.0")
    data = DatasetCard(card).data
    assert data.license == "cc-by-4.0"
    assert data.task_categories == ["image-feature-extraction"]
    assert data.configs == [{"config_name": "tiles", "data_files": [manifest["segments"][0]["tiles"]]}]
    assert f"| sha256 of its weights | {archive.identity.weights} |" in card
    assert "has not said any" in make_card(archive, "someone/archive", manifest)
    assert 'pull_archive("someone/archive")' in card
    assert manifest["source"] == {"split": "train", "added": [{"subset": "a/b"}]}
    assert manifest["unreadable"].keys() == {"a", "b"}
    assert not re.search(r"/home|somebody|home.me", card + json.dumps(manifest))
    assert str(tmp_path) not in card + json.dumps(manifest)
    assert pq.read_table(folder / manifest["segments"][0]["tiles"]).num_rows == 40
    assert not Path("archive.json").exists()
