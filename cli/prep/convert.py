"""What `lps-prep convert` shows."""

from lps.cli.common import ProgressView
from lps.manifests.records import Note
from lps.pipeline.tools.convert import ConvertEvent, Converting


class ConvertProgress(ProgressView):
    """Shows how far a convert is."""

    def on_event(self, event: ConvertEvent) -> None:
        """Take one event of the convert."""
        match event:
            case Note(text):
                self.say(f"note: {text}")
            case Converting(n_done, n_clips):
                if not self.what:
                    self.start("converting", n_clips, done=n_done, unit="clips")
                self.update(n_done)
