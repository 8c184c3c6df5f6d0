"""The search for near hashes: by chunks and by tiles it finds the same pairs, and all of them."""

import numpy as np
import pytest

from lps.manifests.splits import near_copies
from lps.manifests.splits.near_copies import near_matches

N_SEEN, N_HELD = 700, 300


@pytest.fixture(scope="module")
def words() -> near_copies.Words:
    """Return random hashes, of which the held-out ones are those of the first with up to 44 bits turned."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (N_SEEN, 256), dtype=np.uint8)
    turned = np.argsort(rng.random((N_HELD, 256)), axis=1) < rng.integers(0, 45, (N_HELD, 1))
    copies = bits[:N_HELD] ^ turned.astype(np.uint8)
    return np.packbits(np.concatenate([bits, copies]), axis=1).view(np.uint64)


@pytest.mark.parametrize("limit", [0, 15, 31, 32])
@pytest.mark.parametrize("cost", [0, near_copies.LOOKUP_COST])
@pytest.mark.parametrize("swap", [False, True])
def test_all_near_pairs_are_found(
    words: near_copies.Words, limit: int, cost: int, *, swap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_copies, "LOOKUP_COST", cost)
    monkeypatch.setattr(near_copies, "MAX_LOOKED_UP", 5)
    one, two = words[:N_SEEN], words[N_SEEN:]
    one, two = (two, one) if swap else (one, two)
    found = {pair for each in near_matches(one, two, limit) for pair in zip(*map(np.ndarray.tolist, each), strict=True)}
    distances = np.bitwise_count(one[:, None] ^ two[None]).sum(axis=-1)
    rows, columns = np.nonzero(distances <= limit)
    expected = zip(rows.tolist(), columns.tolist(), distances[rows, columns].tolist(), strict=True)
    assert found == set(expected)
    assert len(found) > 3


def test_one_chunk_that_all_hashes_have_is_looked_up_in_parts(
    words: near_copies.Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = words.copy()
    alike.view(np.uint16)[:, 3] = 7
    found = {}
    for cost in (0, 10**9):  # by chunks, by tiles
        monkeypatch.setattr(near_copies, "LOOKUP_COST", cost)
        pairs = near_matches(alike[:N_SEEN], alike[N_SEEN:], 31)
        found[cost] = {pair for each in pairs for pair in zip(*map(np.ndarray.tolist, each), strict=True)}
    assert found[0] == found[10**9] != set()
