"""Values that the paper prints, as cited constants beside ours. Nothing here was measured by this project.

Ge et al., "Deepfake Video Detection via Predictive Representation Learning", ACM TOMM 18(2s), 2022. Per cent.
"""

DATA_SETS = ("ffpp", "dfdc", "celebdf")
"""Names of the paper's data sets; a data set under another name has no published value."""

TABLE1_BASELINES: dict[str, tuple[float | None, float | None, float | None]] = {
    "MesoNet (2018)": (None, 75.30, 54.80),
    "Visual Artifacts (2019)": (78.00, 66.20, 55.10),
    "Multi-task (2019)": (76.30, 53.60, 54.30),
    "Audio-Visual (2020)": (None, 84.40, None),
    "Face+Context (2021)": (75.00, None, 66.00),
    "SPSL (2021)": (96.91, 66.16, None),
    "Multi-attention (2021)": (97.60, None, None),
    "LipForensics (2021)": (97.10, 73.50, 82.40),
    "TD-3DCNN (2021)": (72.22, 78.97, 88.83),
    "LRNet (2021)": (99.90, None, None),
    "FD2Net (2021)": (99.45, 66.09, None),
    "FTCN (2021)": (99.70, 74.00, 86.90),
}
"""AUC on the three data sets as Table 1 cites them from other papers: other splits, other training data."""
TABLE1: dict[str, tuple[float, float, float]] = {
    "LPS_ri": (81.25, 80.25, 92.55),
    "LPS": (99.93, 89.44, 96.75),
    "LPS_ssd": (99.94, 92.30, 97.52),
}

TABLE2: dict[tuple[str, str, str], tuple[float, float, float]] = {
    ("LPS", "ffpp", "ffpp"): (99.93, 92.14, 96.17),
    ("LPS", "ffpp", "dfdc"): (73.24, 89.77, 81.40),
    ("LPS", "ffpp", "celebdf"): (87.72, 91.61, 87.35),
    ("LPS", "dfdc", "ffpp"): (77.91, 89.53, 88.14),
    ("LPS", "dfdc", "dfdc"): (89.44, 90.11, 88.17),
    ("LPS", "dfdc", "celebdf"): (84.22, 91.55, 84.23),
    ("LPS", "celebdf", "ffpp"): (88.69, 98.15, 89.25),
    ("LPS", "celebdf", "dfdc"): (77.35, 94.62, 83.19),
    ("LPS", "celebdf", "celebdf"): (96.75, 89.57, 93.26),
    ("LPS_ssd", "ffpp", "ffpp"): (99.94, 92.33, 96.18),
    ("LPS_ssd", "ffpp", "dfdc"): (88.74, 91.05, 85.37),
    ("LPS_ssd", "ffpp", "celebdf"): (90.17, 94.39, 90.41),
    ("LPS_ssd", "dfdc", "ffpp"): (80.57, 91.62, 89.17),
    ("LPS_ssd", "dfdc", "dfdc"): (92.30, 92.06, 93.21),
    ("LPS_ssd", "dfdc", "celebdf"): (88.52, 94.23, 85.74),
    ("LPS_ssd", "celebdf", "ffpp"): (90.66, 98.74, 92.59),
    ("LPS_ssd", "celebdf", "dfdc"): (80.29, 95.03, 85.11),
    ("LPS_ssd", "celebdf", "celebdf"): (97.52, 95.01, 97.38),
}
"""Model, training set, test set -> AUC, recall, precision. No one set of scores can have all of these triples."""

TABLE3: dict[tuple[str, str], tuple[float, float, float]] = {
    ("aligned", "ffpp"): (99.93, 92.14, 96.17),
    ("aligned", "dfdc"): (89.44, 90.11, 88.17),
    ("aligned", "celebdf"): (96.75, 89.57, 93.26),
    ("unaligned", "ffpp"): (96.66, 90.18, 90.22),
    ("unaligned", "dfdc"): (83.55, 90.05, 83.27),
    ("unaligned", "celebdf"): (92.11, 84.23, 90.61),
}

TABLE4: dict[str, tuple[float, float, float]] = {
    "LPS": (96.75, 89.57, 93.26),
    "LPS_e": (98.06, 91.41, 95.48),
    "LPS_c": (97.35, 90.31, 93.59),
}
TABLES_4_AND_5 = "celebdf"
"""The data set of these tables."""

TABLE5_LAMBDA: dict[float, float] = {
    0.1: 0.57, 0.2: 0.45, 0.3: 0.44, 0.4: 0.39, 0.5: 0.32, 0.6: 0.29, 0.7: 0.15, 0.8: 0.27, 0.9: 0.31, 1.0: 0.41,
}  # fmt: skip
TABLE5_T: dict[float, float] = {
    1: 0.15, 2: 0.38, 3: 0.51, 4: 0.58, 5: 0.66, 6: 0.79, 7: 0.82, 8: 0.85, 9: 0.94, 10: 1.01,
}  # fmt: skip
"""A "loss" of which the paper says neither which nor on what; losses at different lambda are not comparable."""

FIGURE8 = (
    "Figure 8 shows bars without figures. The text says of them that without the encoder the AUC falls by over 18 on "
    "FaceForensics++ and by almost 10 on DFDC and Celeb-DF(v2), and that it falls without aggregator or memory bank."
)

EFFICIENCY_MS: dict[str, float] = {
    "localizer": 31.7,
    "encoder": 114.1,
    "aggregator": 24.4,
    "classifier": 14.7,
    "predictor": 21.7,
    "memory update": 13.9,
}
"""Per video of 180 frames, on a Titan Xp."""
