"""The rows of a clip, as `classify` writes them."""

from dataclasses import replace

import numpy as np

from tests.support.result_files import Planted


def clip_rows(frames: list[Planted], every: float = 1.0) -> list[Planted]:
    """A clip's own row, with the mean embedding of its frames and the logits of the first, and the rows of these."""
    about = {"media_type": "video", "format": "mp4", "duration_seconds": every * len(frames), "frame_rate": 10.0}
    mean = np.mean([frame.embedding for frame in frames], axis=0)
    return [
        replace(frames[0], embedding=mean, facts=frames[0].facts | about),
        *(
            replace(frame, facts=frame.facts | about | {"frame_seconds": every * number})
            for number, frame in enumerate(frames)
        ),
    ]
