"""Records, schemas, splits and integrity of a prepared data set. Imports nothing from the other packages.

    from lps import manifests
    store = manifests.open_store("out/")
    clips = manifests.read_columns(store, "clips", ("clip_id", "label"))

What is named here is loaded when it is first used, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
