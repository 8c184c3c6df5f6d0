"""The public face of the package: every name is there, loads when it is used, and hides no module."""

import subprocess
import sys
from pathlib import Path

import pytest

import lps.manifests as manifests


def test_every_public_name_loads() -> None:
    for name in manifests.__all__:
        assert getattr(manifests, name).__name__ == name
        assert name in dir(manifests)
    with pytest.raises(AttributeError, match="nothing"):
        manifests.nothing  # noqa: B018


def test_no_public_name_is_that_of_a_module_beside_it() -> None:
    folder = Path(str(manifests.__file__)).parent
    beside = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not beside & set(manifests.__all__)


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, lps.manifests; print(sorted({'pyarrow', 'numpy', 'duckdb', 'scipy', 'fsspec'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
