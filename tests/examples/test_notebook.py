"""examples/notebook.ipynb, as it stands, in a kernel."""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples/notebook.ipynb"
READ: Any = nbformat.read  # has no types


def test_the_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = READ(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of libraries that are not ours
def test_the_notebook_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = READ(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=550, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    *_, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 0 <= float(last.outputs[0]["data"]["text/plain"]) <= 1
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("image/png" in output["data"] for output in shown), "the preview"
    assert any("blend" in output["data"]["text/plain"] for output in shown), "the table of clips"
