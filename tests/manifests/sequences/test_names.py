"""Names of sequences and of their images."""

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import VideoFault
from lps.manifests.sequences.names import archive_of, frame_ticks, in_order, is_archive, is_image, uri_in


@pytest.mark.parametrize(
    ("names", "ticks"),
    [
        (["10.png", "2.png", "1.png"], [0, 1, 9]),
        (["frame_007.jpg", "frame_008.jpg"], [0, 1]),
        (["v2_001_face.png", "v2_010_face.webp"], [0, 9]),
        (["0099.bmp", "100.bmp"], [0, 1]),
        (["only.png"], [0]),
        (["12_3.png"], [0]),
        (["00000000000000000000000000001.png", "2.png"], [0, 1]),
    ],
)
def test_images_are_ordered_and_timed_by_their_numbers(names: list[str], ticks: list[int]) -> None:
    assert frame_ticks(in_order(names)) == ticks
    assert in_order(names) == in_order(names[::-1])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["1_1.png", "1_2.png", "2_1.png"], "images must differ in one number: 1_1.png and 2_1.png"),
        (["a1.png", "b2.png"], "images of more than one kind: a1.png and b2.png"),
        (["1.png", "cover.png"], "images of more than one kind"),
        (["1.png", "01.png", "2.png"], "two images of one number: 01.png and 1.png"),
        (["1.png", "1.jpg", "2.jpg"], "two images of one number: 1.jpg and 1.png"),
        (["1.png", "1.jpg"], "images must differ in one number"),
        (["1.png", "9999999999.png"], "numbers too far apart"),
        (["1.png", f"{'9' * 200}.png"], "numbers too far apart"),
    ],
)
def test_images_that_are_no_sequence(names: list[str], said: str) -> None:
    with pytest.raises(VideoFault, match=said) as caught:
        frame_ticks(in_order(names))
    assert caught.value.code == Code.E_NAME_GRAMMAR


def test_uris_of_archives() -> None:
    assert uri_in("real_train/1.tar.gz", "1/real/3") == "real_train/1.tar.gz!/1/real/3/"
    for archive, folder in (("a/1.tar.gz", "1/real/3"), ("1.TAR", ""), ("x!/a.tgz", "b.tar!/c"), ("a\nb.tar", "c\nd")):
        assert archive_of(uri_in(archive, folder)) == (archive, folder)
    for uri in ("real/000/", "real/000.mp4", "1.tar.gz!/1/real/3", "1.zip!/0/"):
        assert archive_of(uri) is None


def test_no_archive_lies_where_its_uris_would_be_those_of_another() -> None:
    assert [path for path in ("1.tar.gz", "a/b.TGZ", "a.tar!/b.tar", "a/.1.tar", "1.gz") if is_archive(path)] == [
        *("1.tar.gz", "a/b.TGZ")
    ]
    assert [path for path in ("a/1.PNG", "1.jpeg", "._1.png", "1.png/2.txt", "1.gif") if is_image(path)] == [
        *("a/1.PNG", "1.jpeg")
    ]
