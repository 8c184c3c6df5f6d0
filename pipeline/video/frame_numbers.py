"""Numbers of pictures in H.264, MPEG-1 and MPEG-2: whether one is missing. Nothing is decoded.

H.264 numbers the pictures that others may refer to; clauses are those of ITU-T H.264 (08/2021): 7.3.2.1 (sequence),
7.3.2.2 (picture), 7.3.3 (slice), 7.4.3 (`frame_num`). MPEG-1 and MPEG-2 number all pictures of a group as they are
shown: `temporal_reference` in 6.3.9 of ITU-T H.262 (02/2012).
"""

from dataclasses import dataclass, field

HEAD = 512
"""Bytes of a unit that are read. All that is asked for stands in front, however large the picture."""
SLICES, PARAMETERS = (1, 2, 5), (7, 8)
IDR = 5


class Bits:
    """Reads a unit bit by bit. Raises ValueError at its end."""

    def __init__(self, unit: bytes) -> None:
        data = unit[1:].replace(b"\0\0\3", b"\0\0")  # the byte of the unit's type; bytes that keep start codes out
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def number(self, n_bits: int) -> int:
        """Read an unsigned number of fixed length: u(n)."""
        self.left -= n_bits
        if self.left < 0:
            raise ValueError("the unit ends early")
        return (self.value >> self.left) & ((1 << n_bits) - 1)

    def flag(self) -> bool:
        """Read one bit."""
        return self.number(1) == 1

    def golomb(self) -> int:
        """Read an unsigned number of variable length: ue(v). As far as skipping goes, also se(v)."""
        zeros = self.left - (self.value & ((1 << self.left) - 1)).bit_length()
        if zeros > 32:
            raise ValueError("no such number")
        self.left -= zeros
        return self.number(zeros + 1) - 1

    def skip(self, n: int) -> None:
        """Read `n` numbers of variable length."""
        for _ in range(n):
            self.golomb()

    def signed(self) -> int:
        """Read a signed number of variable length: se(v)."""
        value = self.golomb()
        return (value + 1) // 2 if value % 2 else -(value // 2)


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """What of a sequence parameter set is needed to read the head of a slice."""

    chroma: int
    separate_planes: bool
    frame_num_bits: int
    order_type: int
    order_bits: int
    order_delta_always_zero: bool
    gaps_allowed: bool
    frames_only: bool


@dataclass(frozen=True, slots=True)
class PictureSet:
    """What of a picture parameter set is needed to read the head of a slice."""

    sequence_id: int
    bottom_order_present: bool
    default_refs: tuple[int, int]
    weighted: bool
    weighted_bi: int
    redundant_present: bool


def read_sequence(unit: bytes) -> tuple[int, SequenceSet]:
    """Return id and content of a sequence parameter set. Raises ValueError."""
    bits = Bits(unit)
    profile = bits.number(8)
    bits.number(16)
    number, chroma, separate = bits.golomb(), 1, False
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.golomb()
        separate = chroma == 3 and bits.flag()
        bits.skip(2)
        bits.flag()
        if bits.flag():
            for k in range(8 if chroma != 3 else 12):
                if bits.flag():
                    _skip_scaling_list(bits, 16 if k < 6 else 64)
    frame_num_bits, order_type, order_bits, always_zero = bits.golomb() + 4, bits.golomb(), 0, False
    if order_type == 0:
        order_bits = bits.golomb() + 4
    elif order_type == 1:
        always_zero = bits.flag()
        bits.skip(2)
        bits.skip(bits.golomb() & 0xFF)
    if frame_num_bits > 16 or order_type > 2 or order_bits > 16:
        raise ValueError("no sequence parameter set")
    bits.golomb()
    gaps_allowed = bits.flag()
    bits.skip(2)
    return number, SequenceSet(
        chroma=0 if separate else chroma,
        separate_planes=separate,
        frame_num_bits=frame_num_bits,
        order_type=order_type,
        order_bits=order_bits,
        order_delta_always_zero=always_zero,
        gaps_allowed=gaps_allowed,
        frames_only=bits.flag(),
    )


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def read_picture_set(unit: bytes) -> tuple[int, PictureSet]:
    """Return id and content of a picture parameter set. Raises ValueError, also for slice groups (never met)."""
    bits = Bits(unit)
    number, sequence_id = bits.golomb(), bits.golomb()
    bits.flag()
    bottom_order_present = bits.flag()
    if bits.golomb():
        raise ValueError("slice groups are not read")
    refs = (bits.golomb() + 1, bits.golomb() + 1)
    weighted, weighted_bi = bits.flag(), bits.number(2)
    bits.skip(3)
    bits.number(2)
    return number, PictureSet(sequence_id, bottom_order_present, refs, weighted, weighted_bi, bits.flag())


@dataclass(slots=True)
class FrameNumbers:
    """Follows the frame numbers of one stream, packet by packet in coded order."""

    length_bytes: int = 0
    """Bytes that hold the length of a unit in MP4 and Matroska; 0 where start codes divide units."""
    sequences: dict[int, SequenceSet] = field(default_factory=dict)
    pictures: dict[int, PictureSet] = field(default_factory=dict)
    previous: int | None = None
    """Frame number of the last picture that others may refer to; None where it is not known."""
    reference: bytes = b""
    """The head of that picture's first slice."""
    tells: bool = False
    """The last picture could be read, and its sequence leaves no numbers out on purpose."""
    number: int = 0
    """Its frame number."""

    fields: bool = False
    """Some pictures are coded as two fields, each a packet where no container keeps them together."""

    def configure(self, extradata: bytes) -> None:
        """Take parameter sets from what a container keeps beside the stream (`avcC`, or units with start codes)."""
        if extradata[:1] != b"\1" or len(extradata) < 7:
            self._take_parameters(split_at_start_codes(extradata))
            return
        self.length_bytes = (extradata[4] & 3) + 1
        at, units = 5, []
        for mask in (31, 255):  # the sequences' number shares its byte
            count = extradata[at] & mask if at < len(extradata) else 0
            at += 1
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2], "big")
                units.append(extradata[at + 2 : at + 2 + size])
                at += 2 + size
        self._take_parameters(units)

    def _take_parameters(self, units: list[bytes]) -> None:
        for unit in units:
            kind = unit[0] & 31 if unit else 0
            try:
                if kind == 7:
                    self.sequences.update([read_sequence(unit)])
                elif kind == 8:
                    self.pictures.update([read_picture_set(unit)])
            except ValueError:
                continue  # pictures that need it are not read

    def missing_before(self, packet: memoryview) -> bool:
        """Return whether a picture is missing between the packet before and this one."""
        units = self._units_before_slice(packet)
        self._take_parameters(units)
        unit = units[-1] if units else b""
        if not unit or unit[0] & 31 not in SLICES:
            return False
        try:
            return self._missing_before_slice(unit)
        except (ValueError, KeyError):
            self.previous, self.tells = None, False
            return False

    def _missing_before_slice(self, unit: bytes) -> bool:
        bits = Bits(unit)
        bits.skip(2)
        sequence = self.sequences[self.pictures[bits.golomb()].sequence_id]
        if sequence.separate_planes:
            bits.number(2)
        number, end = bits.number(sequence.frame_num_bits), 1 << sequence.frame_num_bits
        self.tells, self.number = not sequence.gaps_allowed, number
        self.fields |= not sequence.frames_only and bits.flag()
        missing = False
        if unit[0] & 31 != IDR and self.previous is not None:
            expected = (self.previous, (self.previous + 1) % end)
            if number not in expected and _forgets_all(self.reference, self.sequences, self.pictures):
                expected = (0, 1)
            missing = self.tells and number not in expected
        if unit[0] & 0x60:
            self.previous, self.reference = number, unit
        elif missing:
            self.previous = (number - 1) % end
        return missing

    def _units_before_slice(self, packet: memoryview) -> list[bytes]:
        """Return the heads of the packet's units up to its first slice."""
        if not self.length_bytes:
            units = split_at_start_codes(bytes(packet[:4096]))
            if not any(unit[:1] and unit[0] & 31 in SLICES for unit in units):
                units = split_at_start_codes(bytes(packet))
        else:
            units, at = [], 0
            while at + self.length_bytes < len(packet):
                size = int.from_bytes(packet[at : at + self.length_bytes], "big")
                at += self.length_bytes
                units.append(bytes(packet[at : at + min(size, HEAD)]))
                at += size
                if units[-1][:1] and units[-1][0] & 31 in SLICES:
                    break
        for k, unit in enumerate(units):
            if unit[0:1] and unit[0] & 31 in SLICES:
                return units[: k + 1]
        return units


def split_at_start_codes(data: bytes) -> list[bytes]:
    """Return the heads of the units between start codes."""
    return [unit[:HEAD] for unit in data.split(b"\0\0\1")[1:]]


def _forgets_all(unit: bytes, sequences: dict[int, SequenceSet], pictures: dict[int, PictureSet]) -> bool:
    """Return whether a slice makes the decoder forget all earlier pictures and count anew (7.4.3.3, operation 5)."""
    if unit[0] & 31 == IDR:
        return False
    bits = Bits(unit)
    bits.golomb()
    slice_type = bits.golomb() % 5
    picture = pictures[bits.golomb()]
    sequence = sequences[picture.sequence_id]
    _skip_order(bits, sequence, picture)
    _skip_prediction(bits, sequence, picture, predicted=slice_type in (0, 1, 3), both_ways=slice_type == 1)
    if not bits.flag():
        return False
    while operation := bits.golomb():
        if operation == 5:
            return True
        bits.skip(2 if operation == 3 else 1)
    return False


def _skip_order(bits: Bits, sequence: SequenceSet, picture: PictureSet) -> None:
    """Read on from the frame number to what the slice is predicted from."""
    bits.number((2 if sequence.separate_planes else 0) + sequence.frame_num_bits)
    field_picture = not sequence.frames_only and bits.flag()
    if field_picture:
        bits.flag()
    both_orders = picture.bottom_order_present and not field_picture
    if sequence.order_type == 0:
        bits.number(sequence.order_bits)
        bits.skip(both_orders)
    elif sequence.order_type == 1 and not sequence.order_delta_always_zero:
        bits.skip(1 + both_orders)
    bits.skip(picture.redundant_present)


def _skip_prediction(
    bits: Bits, sequence: SequenceSet, picture: PictureSet, *, predicted: bool, both_ways: bool
) -> None:
    """Read on to how pictures are marked: over the lists of references and their weights (7.3.3.1, 7.3.3.2)."""
    refs = picture.default_refs
    if both_ways:
        bits.flag()
    if predicted and bits.flag():
        refs = (bits.golomb() + 1, bits.golomb() + 1 if both_ways else 0)
    for _ in range(predicted + both_ways):
        if bits.flag():
            while bits.golomb() != 3:
                bits.golomb()
    if (picture.weighted and predicted and not both_ways) or (picture.weighted_bi == 1 and both_ways):
        bits.skip(2 if sequence.chroma else 1)
        for _ in range(refs[0] + (refs[1] if both_ways else 0)):
            bits.skip(2 * bits.flag())
            bits.skip(4 * (sequence.chroma != 0 and bits.flag()))


@dataclass(slots=True)
class TemporalReferences:
    """Follows the numbers of MPEG-1 and MPEG-2 pictures, packet by packet in coded order."""

    seen: set[int] = field(default_factory=set)
    first: int = 0
    """Number from which on none may be missing in this group."""
    anchor: int = -1
    """Number of the last picture that others may refer to, and its packet."""
    anchor_at: int = 0

    def missing_before(self, packet: memoryview, at: int) -> int | None:
        """Return the first packet, `at` or one before it, that may show what is missing; None if nothing is."""
        head = bytes(packet[:HEAD])
        start = head.find(b"\0\0\1\0") + 4
        if start < 4 or start + 2 > len(head):
            return None
        number, is_b = head[start] << 2 | head[start + 1] >> 6, head[start + 1] >> 3 & 7 == 3
        begins = b"\0\0\1\xb8" in head[:start]
        restarts = begins or (self.anchor > 1000 and number < 24)
        missing = None
        if restarts or not is_b:
            missing = self.missing_at_end()
        if not restarts and (number in self.seen or (is_b and number > self.anchor)) and self.seen:
            missing, restarts = at, True
        if restarts or not self.seen or missing is not None:
            self.seen, self.first = set(), 0 if begins and self.seen else number
        self.seen.add(number)
        if not is_b or restarts:
            self.anchor, self.anchor_at = number, at
        return missing

    def missing_at_end(self) -> int | None:
        """Return the packet of the last picture others refer to if one that is shown before it never came."""
        complete = all(number in self.seen for number in range(self.first, self.anchor))
        return None if complete else self.anchor_at
