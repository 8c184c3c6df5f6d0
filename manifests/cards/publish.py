"""Both cards of a data set whose manifests are written."""

from lps.manifests.cards.croissant import croissant
from lps.manifests.cards.facts import read_facts
from lps.manifests.cards.readme import readme
from lps.manifests.index import CARDS
from lps.manifests.schemas import Row
from lps.manifests.storage import Store


def make_cards(out: Store, index: Row) -> dict[str, bytes]:
    """Return the cards by their paths; `index` is what index.json will say, but for the cards.

    They depend on manifests, rule records and plan alone. Raises UnreadableError where one cannot be read.
    """
    others = {path: entry for path, entry in index["manifests"].items() if path not in CARDS}
    facts = read_facts(out, {**index, "manifests": others})
    return dict(zip(CARDS, (readme(facts), croissant(facts)), strict=True))
