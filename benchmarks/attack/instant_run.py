"""`lps-prep` on a private Ray cluster, with videos that take no time: what kills at random moments are aimed at."""

import os
import sys
from typing import Any

from ray import cloudpickle

from lps.cli.prep.main import main
from lps.pipeline.job.request import RunOptions
from tests import builders
from tests.pipeline.job import killed_writes

if __name__ == "__main__":
    for module in (builders, killed_writes):
        cloudpickle.register_pickle_by_value(module)  # workers cannot import the tests
    defaults: dict[str, Any] = RunOptions.__init__.__kwdefaults__  # type: ignore[assignment]
    defaults["process"] = killed_writes.instant_clip
    os.setpgid(0, 0)
    main(sys.argv[1:], prog_name="lps-prep")
