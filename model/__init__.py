"""Networks, losses, shard reader, trainer and evaluation of Latent Pattern Sensing.

    from lps import model as m

    with m.ClipReader(m.open_data("out/", "train")) as reader:
        for batch in reader.epoch(0):
            print(batch.frames.shape, batch.labels)

What is named here is loaded when it is first used, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
