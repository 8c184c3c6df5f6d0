"""Write docs/codes.md from the codes themselves: `python -m lps.cli.docs.codes_page docs/codes.md`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill

from lps.manifests.codes import (
    CODE_MEANING,
    CODE_REMEDY,
    PAIR_FALLBACK_MEANING,
    PAIR_FALLBACK_REMEDY,
    QUARANTINE_CODES,
    Code,
    PairFallback,
    Stage,
)

WIDTH = 118
AnyCode = Code | PairFallback
MEANING: dict[AnyCode, str] = CODE_MEANING | PAIR_FALLBACK_MEANING
REMEDY: dict[AnyCode, str] = CODE_REMEDY | PAIR_FALLBACK_REMEDY

INTRO = f"""\
# Codes

Generated from `manifests/codes.py` by `make docs`; do not edit.

Every input video ends as a row of `OUT/manifests/videos.parquet`, and one that is not `ok` has a code. Every clip of a
fake that does not share the cut of its original says why not. Messages and pages link here by the name of the code.

| codes | column | beside it |
|---|---|---|
| `E_…` | `error_code` of `OUT/manifests/videos.parquet` | `status` is `failed`; `partial` where clips were made |
| `S_…` | `error_code` of `OUT/manifests/videos.parquet` | `status` is `skipped` |
| `P_…` | `pair_fallback` of `OUT/manifests/clips.parquet` | `pair_mode` is `fallback` |

`error_stage` says where a fault was found ({", ".join(f"`{stage}`" for stage in Stage)}),
`error_detail` what it was in this video. What is known before anything is processed stands in the column `code` of
`OUT/plan/videos.parquet`, too. `lps-prep plan`, `run`, `status` and `lps-audit show` count codes by label; `lps-prep
preview` and the audit's page show videos of each; `lps-train score` gives the code of a video that it cannot score. To
list the videos of one:

```sql
SELECT uri, status, error_stage, error_detail FROM 'OUT/manifests/videos.parquet' WHERE error_code = 'E_NO_FACE';
```

Settings are those of [prep.md](prep.md#options), exit codes those of [lps-prep](prep.md#stop-resume-retry) and
[lps-audit](audit.md#exit-codes); the checks of an audit are in [audit.md](audit.md#checks).
"""
PARTS: dict[str, tuple[str, str]] = {
    "E_": ("Faults of videos", ""),
    "S_": ("Files that are no inputs", "They count as nothing that failed."),
    "P_": (
        "Fakes that do not share the cut of their original",
        "Only with `--pairing original`, see [Pairs](prep.md#pairs). "
        "Such a fake is prepared as ever, on a window of its own.",
    ),
}
QUARANTINED = (
    "A fault of the processing, not of the video, which is quarantined: it counts against `--max-failed`, and check "
    "[R5](audit.md#r5) names it."
)
NOTES: Mapping[AnyCode, tuple[str, ...]] = {
    **dict.fromkeys(QUARANTINE_CODES, (QUARANTINED,)),
    Code.E_ORIGINAL_UNRESOLVED: (
        "No row has it: a note of `lps-prep plan` and `run` counts such fakes, which are still used.",
    ),
    Code.E_LIMIT: ("A file above `max_bytes` is not even read.",),
    Code.E_DECODE: ("Damage outside of what is [decoded](prep.md#what-is-decoded) is not seen.",),
    Code.E_TRUNCATED: ("Damage outside of what is [decoded](prep.md#what-is-decoded) is not seen.",),
}


def codes_page() -> str:
    """Return the page: every code with its meaning and what to do, each below a heading that is its name."""
    lines = [INTRO]
    for prefix, (title, said) in PARTS.items():
        codes = [code for code in MEANING if code.startswith(prefix)]
        lines += [f"## {title}", "", *([said, ""] if said else []), "| code | means |", "|---|---|"]
        lines += [f"| [`{code}`](#{code.lower()}) | {MEANING[code]} |" for code in codes]
        for code in codes:
            lines += ["", *_code(code)]
        lines.append("")
    return "\n".join(lines)


def _code(code: AnyCode) -> Iterator[str]:
    yield f"### {code}"
    yield ""
    meaning = MEANING[code]
    yield f"{meaning[0].upper()}{meaning[1:]}."
    for note in NOTES.get(code, ()):
        yield ""
        yield fill(note, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    yield ""
    yield fill(f"*What to do:* {REMEDY[code]}", width=WIDTH, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Write the page to the file named on the command line."""
    Path(sys.argv[1]).write_text(codes_page())


if __name__ == "__main__":
    main()
