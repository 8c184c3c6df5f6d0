"""The panel of shortcuts as a record: made from a data set and a split set, kept beside them, read by whoever reports.

`shortcuts.json` in the data set holds one panel for each split set that was measured. The index does not list it: it is
measured of the data set and says by digests of what.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lps.manifests.canonical import pretty_json
from lps.manifests.columns import PATHS, split_path
from lps.manifests.errors import UnreadableError
from lps.manifests.fields import checked
from lps.manifests.index import read_json
from lps.manifests.schemas import check_version
from lps.manifests.storage import Store

SHORTCUTS_JSON = "shortcuts.json"
SCHEMA = "lps.shortcuts"
SCHEMA_VERSION = "1.0"
PANEL_VERSION = 1
"""Rises with every change of what is measured or how: panels of other versions are not compared."""

ProbeModel = Literal["trees", "logistic", "nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TellingFeature:
    """One column that a shortcut uses."""

    name: str
    auc: float | None
    """AUC of its value alone, larger called fake: below 0.5 where fakes have the smaller values. None where it has
    fewer than two values."""
    weight: float
    """AUC lost where its values are shuffled (trees), mean absolute coefficient of the standardised value (logistic
    regression), or 0 (nearest neighbours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortcutScore:
    """How well one kind of feature tells the label, alone."""

    name: str
    what: str
    """The features in words."""
    model: ProbeModel
    auc: float | None
    """AUC within held-out folds that keep groups whole; 0.5 tells nothing. None: unknown, and `note` says why."""
    low: float | None = None
    high: float | None = None
    """95 % interval over draws of groups."""
    n_real: int = 0
    n_fake: int = 0
    n_groups: int = 0
    features: tuple[TellingFeature, ...] = ()
    """Those that tell, the strongest first; none where the interval holds 0.5."""
    note: str = ""

    @property
    def tells(self) -> bool:
        """True where the whole interval lies above chance."""
        return self.low is not None and self.low > 0.5

    def shown(self) -> str:
        """Return AUC and interval for people."""
        if self.auc is None:
            return "UNKNOWN"
        return f"{self.auc:.3f}" if self.low is None else f"{self.auc:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def because(self) -> str:
        """Name the features that tell, each with its AUC alone; without any, say what there is to say."""
        named = (f.name if f.auc is None else f"{f.name} ({f.auc:.2f})" for f in self.features)
        return ", ".join(named) or self.note


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortcutPanel:
    """All shortcuts of one split set."""

    split_set: str
    seed: int
    max_clips: int
    n_videos: int
    """Labelled videos with clips that the split set places."""
    n_sampled: int
    """Those that were looked at, one clip each."""
    n_groups: int
    """Groups among these: nobody is in two of them."""
    scores: tuple[ShortcutScore, ...]
    digests: Mapping[str, str]
    """Path -> sha256 of the manifests that it was made from; that of clips holds the digests of all pictures."""
    versions: Mapping[str, str]
    """Packages that decide the last digits."""
    n_unread: int = 0
    """Sampled clips whose pictures could not be read."""
    panel_version: int = PANEL_VERSION

    def score(self, name: str) -> ShortcutScore | None:
        """Return one shortcut by its name, None where the panel lacks it."""
        return next((score for score in self.scores if score.name == name), None)

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values, which `panel_from` reads."""
        return {**asdict(self), "scores": [{**asdict(s), "features": [*map(asdict, s.features)]} for s in self.scores]}

    def is_of(self, index: Mapping[str, Any]) -> bool:
        """Tell whether it was made from the manifests that an index lists, as this version would make it."""
        return self.panel_version == PANEL_VERSION and self.digests == panel_digests(index, self.split_set)

    def said(self) -> str:
        """Say what was looked at."""
        text = f"{self.n_sampled} of {self.n_videos} videos in {self.n_groups} groups, one clip each"
        return f"{text}; {self.n_unread} could not be read" if self.n_unread else text


def panel_digests(index: Mapping[str, Any], split_set: str) -> dict[str, str]:
    """Return the digests by which a panel of a split set is known, from index.json."""
    paths = (*(PATHS[name] for name in ("videos", "clips", "shards")), split_path(split_set))
    listed = index.get("manifests", {})
    return {path: str(listed[path]["sha256"]) for path in paths if path in listed}


def panel_from(record: Any, where: str) -> ShortcutPanel:
    """Return the panel of a record. Raises UnreadableError for what is none."""
    try:
        found: ShortcutPanel = checked(record, ShortcutPanel, "panel")
    except UnreadableError as e:
        raise UnreadableError(f"{where} is damaged: {e}") from e
    return found


def read_panels(store: Store) -> dict[str, ShortcutPanel]:
    """Return the stored panel of each split set, none where nothing was measured.

    They may be of an earlier state of the data set: ask `is_of`. Raises UnreadableError for a damaged or newer file.
    """
    if not store.exists(SHORTCUTS_JSON):
        return {}
    where = store.join(SHORTCUTS_JSON)
    record = read_json(store, SHORTCUTS_JSON)
    if record.get("schema") != SCHEMA:
        raise UnreadableError(f"{where} holds no panels of shortcuts; `lps-audit shortcuts` makes it")
    check_version(str(record.get("schema_version")), what=where, newest=SCHEMA_VERSION)
    panels = record.get("panels")
    if not isinstance(panels, dict):
        raise UnreadableError(f"{where} is damaged: it lists no panels")
    return {name: panel_from(panel, where) for name, panel in panels.items()}


def store_panel(store: Store, panel: ShortcutPanel) -> None:
    """Keep a panel in the data set, beside those of other split sets. Raises UnreadableError as reading and writing."""
    panels = {**read_panels(store), panel.split_set: panel}
    record = {name: each.record() for name, each in panels.items()}
    store.publish(SHORTCUTS_JSON, pretty_json({"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "panels": record}))
