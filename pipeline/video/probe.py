"""First look at one source file, sequence of images, or archive of these: digest and header, without decoding."""

from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lps.manifests.canonical import file_sha256
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.manifests.records import Header
from lps.manifests.sequences.archive import images_in
from lps.manifests.sequences.names import is_sequence
from lps.pipeline.config.params import Limits
from lps.pipeline.video.reading import fault_of_reading
from lps.pipeline.video.source_reader import SourceReader, SourceRef, archive_limits

if TYPE_CHECKING:
    from lps.pipeline.video.images import SequenceLook


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the plan must know of a file."""

    n_bytes: int
    sha256: str
    header: Header = field(default_factory=Header)
    n_frames_promised: int = 0
    """Frames by the container's packets; decoding may give fewer."""
    key_distance: float = 0.0
    """Frames from where decoding may start to a frame, on average; of a video that decodes only whole, all frames."""
    code: Code | None = None
    stage: Stage | None = None
    detail: str = ""

    def record(self) -> dict[str, Any]:
        """Return the probe as plain JSON values."""
        return asdict(self)


def probe_from_record(record: dict[str, Any]) -> Probe:
    """Rebuild a probe from its JSON form."""
    values = dict(record)
    values["header"] = Header(**values["header"])
    values["code"] = Code(values["code"]) if values["code"] else None
    values["stage"] = Stage(values["stage"]) if values["stage"] else None
    return Probe(**values)


def holds_video(source: SourceReader, file: SourceRef, limits: Limits) -> bool:
    """Tell whether libav opens a source file as a video: whether two frames decode, which sets it apart from a picture.

    Raises UnreadableError where a store that is not local does not give the file.
    """
    from lps.pipeline.video.container import MEDIA_ERRORS, open_video

    with source.local(file) as path:
        try:
            container, stream = open_video(path, limits)
            with container:
                found = len(list(islice(container.decode(stream), 2))) == 2
        except (VideoFault, *MEDIA_ERRORS):
            found = False
    if not found:
        source.forget(file)
    return found


def probe_file(source: SourceReader, file: SourceRef, limits: Limits) -> Probe:
    """Hash a source file and read its header. Its faults, and that it cannot be read, become the probe's code.

    Raises UnreadableError where a store that is not local does not give the file.
    """
    if is_sequence(file.uri):
        return _probe_sequence(source, file, limits)
    if (n_bytes := _bytes_too_many(source, file, limits)) is not None:
        return _too_large(n_bytes, limits)  # not fetched
    with source.local(file) as path:
        probe = _probe(path, limits)
    if probe.code is not None:
        source.forget(file)  # it will not be processed
    return probe


@dataclass(frozen=True, slots=True)
class ArchiveProbe:
    """What the plan must know of an archive of sequences."""

    own: Probe
    """Probe of the file: `n_frames_promised` is the number of sequences, the code what kept them from being read."""
    sequences: dict[str, Probe]
    """By folder in the archive; none where there is a code."""


def probe_archive(source: SourceReader, file: SourceRef, limits: Limits) -> ArchiveProbe:
    """Read an archive of sequences, all of it, and say what is in it. Raises UnreadableError as `probe_file` does."""
    from lps.pipeline.video.images import SequenceLook

    if (n_bytes := _bytes_too_many(source, file, limits)) is not None:
        return ArchiveProbe(_too_large(n_bytes, limits), {})
    looks: dict[str, SequenceLook] = {}
    n_bytes = file.n_bytes or 0
    try:
        with source.local(file) as path:
            n_bytes = path.stat().st_size
            for image in images_in(path, archive_limits(limits)):
                looks.setdefault(image.folder, SequenceLook(limits)).add(image.name, image.data)
        own = Probe(n_bytes=n_bytes, sha256="", n_frames_promised=len(looks))
        return ArchiveProbe(own, {folder: _of_look(look) for folder, look in sorted(looks.items())})
    except OSError as e:
        fault = fault_of_reading(e)
    except VideoFault as e:
        fault = e
    source.forget(file)
    own = Probe(n_bytes=n_bytes, sha256="", code=fault.code, stage=fault.stage, detail=fault.detail)
    return ArchiveProbe(own, {})


def _probe_sequence(source: SourceReader, file: SourceRef, limits: Limits) -> Probe:
    from lps.pipeline.video.images import look_at

    try:
        with source.local(file, limits=limits) as folder:
            return _of_look(look_at(folder, limits))
    except VideoFault as fault:
        return Probe(n_bytes=file.n_bytes or 0, sha256="", code=fault.code, stage=fault.stage, detail=fault.detail)


def _of_look(look: "SequenceLook") -> Probe:
    """Return the probe of a sequence whose images were read."""
    try:
        file = look.file()
    except VideoFault as fault:
        code, stage, detail = fault.code, fault.stage, fault.detail
        return Probe(n_bytes=look.n_bytes, sha256=look.sha256, code=code, stage=stage, detail=detail)
    promised = file.scan.n_frames
    return Probe(n_bytes=look.n_bytes, sha256=look.sha256, header=file.header, n_frames_promised=promised)


def _bytes_too_many(source: SourceReader, file: SourceRef, limits: Limits) -> int | None:
    """Return the bytes of a file of a store that is not local, where they are too many to fetch it."""
    if source.store.is_local:
        return None
    known = source.store.size(file.uri) if file.n_bytes is None else file.n_bytes
    return known if known is not None and known > limits.max_bytes else None


def _probe(path: Path, limits: Limits) -> Probe:
    from lps.pipeline.video.container import read_file

    try:
        n_bytes = path.stat().st_size
        if n_bytes > limits.max_bytes:
            return _too_large(n_bytes, limits)
        sha256 = file_sha256(path)
    except OSError as e:
        fault = fault_of_reading(e)
        return Probe(n_bytes=0, sha256="", code=fault.code, stage=fault.stage, detail=fault.detail)
    if not n_bytes:  # the listing did not say so
        return Probe(n_bytes=0, sha256=sha256, code=Code.E_EMPTY_FILE, stage=Stage.PROBE)
    try:
        file = read_file(path, limits)
        if file.fault is not None:
            raise file.fault
        n_frames, index = file.scan.n_frames, file.scan.index
        return Probe(
            n_bytes=n_bytes,
            sha256=sha256,
            header=file.header,
            n_frames_promised=n_frames,
            key_distance=round(index.key_distance, 3) if index else n_frames,
        )
    except VideoFault as fault:
        return Probe(n_bytes=n_bytes, sha256=sha256, code=fault.code, stage=fault.stage, detail=fault.detail)


def _too_large(n_bytes: int, limits: Limits) -> Probe:
    """Return the probe of a file that nobody is to read: not even its digest is known."""
    detail = f"{n_bytes} bytes, limit {limits.max_bytes}"
    return Probe(n_bytes=n_bytes, sha256="", code=Code.E_LIMIT, stage=Stage.PROBE, detail=detail)
