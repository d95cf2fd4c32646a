"""Images out of what is on this machine, as `docker save` writes them and `ctr images import` reads them."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""The kernel's words for a machine, and those of images."""


def archive(to: Path, name: str, layer: bytes, command: Sequence[str]) -> None:
    """Write the image *name* of one layer, a tar archive, to the file *to*."""
    of_layer = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{of_layer}"]},
    }
    written = json.dumps(config).encode()
    of_config = hashlib.sha256(written).hexdigest()
    manifest = [{"Config": f"{of_config}.json", "RepoTags": [name], "Layers": [f"{of_layer}.tar"]}]
    contents = {
        f"{of_config}.json": written,
        f"{of_layer}.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(to, "w") as whole:
        for path, content in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            whole.addfile(member, io.BytesIO(content))
