"""Video to aligned face clips to shards, on Ray.

    from lps import pipeline
    request = pipeline.PrepRequest(source="videos/", out="out/", params=pipeline.Params(localizer="mtcnn"))
    summary = pipeline.run_job(request, on_event=print)

What is named here is loaded when it is first used, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
