"""A small tree of each published data set that is read by folders, as downloaded: path -> content."""

import json

CELEBDF_PP_LIST = """\
1 YouTube-real/00170.mp4
1 Celeb-real/id0_0007.mp4
0 Celeb-synthesis/FaceSwap/GHOST/id0_id1_0007.mp4
0 Celeb-synthesis/TalkingFace/IP_LAP/id1_0000_test_00003.mp4
"""

RELEASES: dict[str, dict[str, bytes]] = {
    "celebdf-v1": {
        "Celeb-real/id0_0000.mp4": b"x",
        "Celeb-synthesis/id0_id1_0000.mp4": b"x",
        "YouTube-real/00170.mp4": b"x",
        "List_of_testing_videos.txt": b"0 YouTube-real/00170.mp4\n1 Celeb-synthesis/id0_id1_0000.mp4\n",
    },
    "celebdf-pp": {
        **dict.fromkeys((f"Celeb-real/id{n}_{k:04}.mp4" for n in (0, 1) for k in (0, 7)), b"x"),
        "YouTube-real/00170.mp4": b"x",
        "YouTube-real/00011.mp4": b"x",
        "Celeb-synthesis/FaceSwap/Celeb-DF/id0_id1_0007.mp4": b"x",
        "Celeb-synthesis/FaceSwap/GHOST/id0_id1_0007.mp4": b"x",
        "Celeb-synthesis/FaceReenact/LIA/id1_id0_0000.mp4": b"x",
        "Celeb-synthesis/TalkingFace/IP_LAP/id1_0000_test_00003.mp4": b"x",
        "List_of_testing_videos.txt": CELEBDF_PP_LIST.encode(),
    },
}


def wrapped(tree: dict[str, bytes], folder: str) -> dict[str, bytes]:
    """Return a tree that was unpacked into a folder."""
    return {f"{folder}/{path}": data for path, data in tree.items()}


def json_bytes(value: object) -> bytes:
    """Return a value as the content of a JSON file."""
    return json.dumps(value).encode()
