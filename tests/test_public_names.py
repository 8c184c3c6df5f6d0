"""The public faces of the packages: every name is there, loads when it is used, and hides no module."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

FACES = ("manifests", "model", "pipeline")
HEAVY = ("av", "cv2", "duckdb", "fsspec", "numpy", "pyarrow", "ray", "scipy", "torch")


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_loads(face: str) -> None:
    package = import_module(f"lps.{face}")
    assert len(package.__all__) > 10
    for name in package.__all__:
        found = getattr(package, name)
        assert found is not None
        assert getattr(found, "__name__", name) == name
        assert name in dir(package)
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


@pytest.mark.parametrize("face", FACES)
def test_no_public_name_is_that_of_a_module_beside_it(face: str) -> None:
    """Once imported, the module would take the name's place."""
    package = import_module(f"lps.{face}")
    folder = Path(str(package.__file__)).parent
    beside = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not beside & set(package.__all__)


@pytest.mark.parametrize("face", FACES)
def test_importing_the_package_loads_nothing(face: str) -> None:
    code = f"import sys, lps.{face}; print(sorted({set(HEAVY)} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
