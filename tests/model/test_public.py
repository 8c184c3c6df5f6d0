"""The public face of the package: every name loads when it is used, and a reader needs its data only."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import lps.model as m

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec


def test_every_public_name_loads_and_hides_no_module() -> None:
    for name in m.__all__:
        assert getattr(m, name).__name__ == name
    assert not {path.stem for path in Path(str(m.__file__)).parent.iterdir()} & set(m.__all__)


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, lps.model; print(sorted({'torch', 'pyarrow', 'numpy', 'cv2'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_reader_needs_its_data_only(make: "Maker", spec: "type[Spec]") -> None:
    out = make.data_set([[spec(video="r", n_frames=60), spec(video="f", label=1, n_frames=60)]])
    with m.ClipReader(m.open_data(str(out), "train")) as reader:
        assert [batch.frames.shape[:2] for batch in reader.epoch(0)] == [(2, 60)]
