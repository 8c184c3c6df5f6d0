"""What it means that the system does not give a file of the source."""

import errno

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault

_OF_THIS_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def fault_of_reading(error: OSError) -> VideoFault:
    """Return the fault of a source file that could not be read: nobody is charged for it.

    Raises the error itself where not the file but this process is why: too many open files, no memory.
    """
    if error.errno in _OF_THIS_PROCESS:
        raise error
    is_gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
    code = Code.E_MISSING_FILE if is_gone else Code.E_UNREADABLE
    return VideoFault(code, Stage.PROBE, error.strerror or type(error).__name__)
