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

ACTOR_LIST = {
    "original_videos/1003254/1003254_A_001.mp4": {"label": "real", "set": "train", "augmentations": []},
    "method_A/1003254/1003254_A/1255229_1003254_A_001.mp4": {"label": "fake", "set": "train"},
    "method_B/1003254/1003254_A/1300001_1003254_A_001.mp4": {"label": "fake", "set": "test"},
}
RELEASES["dfdc-preview"] = {
    **dict.fromkeys(ACTOR_LIST, b"x"),
    "original_videos/1004567/1004567_B_002.mp4": b"x",
    "dataset.json": json.dumps(ACTOR_LIST).encode(),
}
RELEASES["ffpp-flat"] = {
    **dict.fromkeys((f"original/{n}.mp4" for n in ("071", "054")), b"x"),
    "Deepfakes/071_054.mp4": b"x",
    "FaceShifter/054_071.mp4": b"x",
    "DeepFakeDetection/01_02__meeting_serious__YVGY8LOK.mp4": b"x",
    "csv/FF++_Metadata.csv": b"x",
}
SWAP = "manipulated_videos/end_to_end/071_M101.mp4"
RELEASES["deeperforensics"] = {
    SWAP: b"x",
    "manipulated_videos/end_to_end_level_1/071_M101.mp4": b"x",
    "manipulated_videos/reenact_postprocess/500_W004.mp4": b"x",
    "source_videos/M101/light_down/contempt/camera_front/M101_light_down_contempt_camera_front.mp4": b"x",
    "source_videos/M101/BlendShape/camera_left/M101_BlendShape_camera_left.mp4": b"x",
    "lists/splits/train.txt": b"071_M101.mp4\n\n",
    "lists/splits/val.txt": b"",
    "lists/splits/test.txt": b"500_W004.mp4\r\n",
}
RELEASES["df40"] = {
    "train/simswap/ff/000_003.mp4": b"x",
    "test/simswap/ff/071_054.mp4": b"x",
    "test/simswap/cdf/id0_id1_0000.mp4": b"x",
    "test/MRAA/ff/000_003.mp4": b"x",
    "test/sadtalker/cdf/id0_0000.mp4": b"x",
    "test/wav2lip/ff/speech.mp4": b"x",
    "test/heygen/fake/a.mp4": b"x",
    "test/heygen/real/b.mp4": b"x",
    "test/blendface/ff/frames/000_003/000.png": b"x",
}
FAKE_AV_ROWS = """\
source,target1,target2,method,category,type,race,gender,path,
id00076,-,-,real,A,RealVideo-RealAudio,African,men,00109.mp4,FakeAVCeleb/RealVideo-RealAudio/African/men/id00076
id00076,-,-,rtvc,B,RealVideo-FakeAudio,African,men,00109_fake.mp4,x
id00076,id00476,-,wav2lip,D,FakeVideo-FakeAudio,African,men,00109_id00476_wavtolip.mp4,x
id04540,id05235,-,faceswap,C,FakeVideo-RealAudio,Asian (East),women,00078_id05235_eQTviHjyISo.mp4,x
id04540,-,-,real,A,RealVideo-RealAudio,Asian (East),women,00078.mp4,x
id09999,-,-,real,A,RealVideo-RealAudio,Asian (East),women,00078.mp4,x
"""
RELEASES["fakeavceleb"] = {
    "RealVideo-RealAudio/African/men/id00076/00109.mp4": b"x",
    "RealVideo-FakeAudio/African/men/id00076/00109_fake.mp4": b"x",
    "FakeVideo-FakeAudio/African/men/id00076/00109_id00476_wavtolip.mp4": b"x",
    "RealVideo-RealAudio/Asian (East)/women/id04540/00078.mp4": b"x",
    "RealVideo-RealAudio/Asian (East)/women/id09999/00078.mp4": b"x",
    "FakeVideo-RealAudio/Asian (East)/women/id04540/00078_id05235_eQTviHjyISo.mp4": b"x",
    "meta_data.csv": FAKE_AV_ROWS.encode(),
}
EVAL_TABLE = "video-metadata-publish-with-links.csv"
RELEASES["deepfake-eval-2024"] = {
    "video-data/clip one.mp4": b"x",
    "video-data/b.mp4": b"x",
    EVAL_TABLE: b'Filename,Video Ground Truth,Link\nclip one.mp4,Real,"http://a, b"\nb.mp4,Fake,\n',
}
RELEASES["ffiw"] = {
    **{f"{side}/{s}/0000000{k}.mp4": b"x" for side in ("source", "target") for s in ("train", "test") for k in (0, 1)},
}
RELEASES["uadfv"] = {
    **dict.fromkeys(("real/0000.mp4", "real/0001.mp4", "fake/0000_fake.mp4", "fake/0001_fake.mp4"), b"x"),
}

RELEASES["deepspeak-v1"] = {
    **dict.fromkeys((f"v/{name}.mp4" for name in ("10-4100", "11-4897", "12-1")), b"x"),
    "v/facefusion--10-11--4100-4897--0.mp4": b"x",
    "v/wav2lip--10-12--4100-1--0.mp4": b"x",
    "annotations-split-def.csv": b"identity,split\n10,train\n11,Train\n12,test\n",
}
RELEASES["deepspeak-v2"] = {
    **dict.fromkeys((f"{name}.mp4" for name in ("5-6860", "6-6868")), b"x"),
    "diff2lip-6868-6860-playht.mp4": b"x",
    "memo-1-2-real.mp4": b"x",
    "annotations-fake.csv": b"""\
video-file,kind,engine,identity-source,identity-target,recording-source,recording-target
diff2lip-6868-6860-playht.mp4,lipsync,diff2lip,6,5,6868,6860
""",
    "annotations-split-def.csv": b"identity,split\n5,test\n6,test\n",
}
HEX = "0123456789abcdef0123"
RELEASES["kodf"] = {
    f"actors/{HEX}/{HEX}_001.mp4": b"x",
    "actors/123456/123456_002.mp4": b"x",
    f"dfl/20201117/{HEX}/{HEX}_123456_1_0001.mp4": b"x",
    f"audio-driven/20201117/123456/123456_{HEX}_5_0007.mp4": b"x",
}
UTTERANCE = "vox_celeb_2/id01358/_1nATum8x78/00030"
LIP_ROWS: list[dict[str, str | None]] = [
    {"file": f"{UTTERANCE}/real.mp4", "original": "VoxCeleb2/dev/x.mp4", "modify_type": "real"},
    {"file": f"{UTTERANCE}/real_video_fake_audio.mp4", "original": f"{UTTERANCE}/real.mp4",
     "modify_type": "audio_modified", "video_model": None},
    {"file": f"{UTTERANCE}/fake_video_real_audio.mp4", "original": f"{UTTERANCE}/real.mp4",
     "modify_type": "visual_modified", "video_model": "Talklip"},
    {"file": "lrs3/00j9bKdiOjk/00001/fake_video_fake_audio.mp4", "original": "lrs3/00j9bKdiOjk/00001/real.mp4",
     "modify_type": "both_modified", "video_model": "diff2lip"},
    {"file": "silent_videos/subject_17_ddvyjnjfad_vid_2_6/real.mp4", "original": None, "modify_type": "real"},
]  # fmt: skip
RELEASES["av-deepfake1m-pp"] = {
    **{f"val/{row['file']}": b"x" for row in LIP_ROWS},
    "val_metadata.json": json.dumps(LIP_ROWS).encode(),
}
RELEASES["idforge"] = {
    "pristine/id00/id00_03/id00_scene_0010-0.mp4": b"x",
    "face_tts/id00/id00_03/id00_scene_0015_0_infoswap.mp4": b"x",
    "lip_rvc_textmismatch/id00/id00_04/id00_scene_0015_0_infoswap.mp4": b"x",
    "rvc_textmismatch/id00/id00_03/id00_scene_0014.mp3.mp4": b"x",
    "train.csv": b"pristine/id00/id00_03/id00_scene_0010-0.mp4\n",
    "val.csv": b"\n",
    "test.csv": b"face_tts/id00/id00_03/id00_scene_0015_0_infoswap.mp4\r\n",
}


def wrapped(tree: dict[str, bytes], folder: str) -> dict[str, bytes]:
    """Return a tree that was unpacked into a folder."""
    return {f"{folder}/{path}": data for path, data in tree.items()}


def json_bytes(value: object) -> bytes:
    """Return a value as the content of a JSON file."""
    return json.dumps(value).encode()
