"""The public face of the package: every name is there, loads when it is used, and hides no module."""

import subprocess
import sys
from pathlib import Path

import pytest

from lps import pipeline


def test_every_public_name_loads() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
        assert name in dir(pipeline)
    with pytest.raises(AttributeError, match="nothing"):
        pipeline.nothing  # noqa: B018


def test_no_public_name_is_that_of_a_module_beside_it() -> None:
    folder = Path(str(pipeline.__file__)).parent
    beside = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not beside & set(pipeline.__all__)


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, lps.pipeline; print(sorted({'pyarrow', 'numpy', 'torch', 'ray', 'cv2'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
