"""Archives as earlier releases wrote them."""

import hashlib
import json

from csmae_hf.archive.folder import MANIFEST, read_manifest


def write_as_version(folder, version):
    """Rewrite the JSON of an archive of one segment as version 1 or 2 had it, files and all."""
    manifest = read_manifest(folder)
    (segment,) = manifest.pop("segments")
    assert segment["removed"] is None
    manifest["version"] = version
    manifest["tiles"] = {"count": segment["count"], "file": segment["tiles"]}
    for sensor, item in manifest["sensors"].items():
        item["file"] = segment["embeds"][sensor]
    manifest["files"].pop(segment["order"], None)
    if version == 1:
        manifest["made_with"].pop("config")
        manifest.pop("provenance")
    else:  # all sorted ids hashed in one go
        manifest["provenance"]["tiles"] = {"all": {"count": segment["count"], "sha256": "0" * 64}}
    manifest.pop("sha256")
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))
