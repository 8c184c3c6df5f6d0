"""The public face of the package as a user has it: a reader needs its data only."""

from typing import TYPE_CHECKING

import lps.model as m

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec


def test_a_reader_needs_its_data_only(make: "Maker", spec: "type[Spec]") -> None:
    out = make.data_set([[spec(video="r", n_frames=60), spec(video="f", label=1, n_frames=60)]])
    with m.ClipReader(m.open_data(str(out), "train")) as reader:
        assert [batch.frames.shape[:2] for batch in reader.epoch(0)] == [(2, 60)]
