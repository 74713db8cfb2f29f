"""The demo's clips, like those of a trail camera: Motion JPEG in AVI, with the time of the camera's clock."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from PIL import Image

SIZE = (320, 240)
SCENE = (352, 264)
"""What a scene must measure, of which the camera sees a part: one on a sapling moves in the wind."""

_FRAMES_PER_SECOND, _SECONDS = 5, 4


def film(scene: Image.Image, began: datetime, burn_in: Callable[[Image.Image, datetime], None]) -> bytes:
    """Return a clip; the same arguments give the same bytes.

    Args:
        scene: RGB, of the size `SCENE`.
        began: by the camera's clock.
        burn_in: draws the strip with the time onto a frame.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "clip.avi")
        with av.open(str(path), "w") as container:
            container.metadata["date"] = f"{began:%Y-%m-%d %H:%M:%S}"
            stream: Any = container.add_stream("mjpeg", rate=_FRAMES_PER_SECOND)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
            stream.codec_context.thread_count = 1
            for number in range(_FRAMES_PER_SECOND * _SECONDS):
                left, top = (round((1 + np.sin(number / pace)) * margin) for pace, margin in ((3, 16), (5, 12)))
                frame = scene.crop((left, top, left + SIZE[0], top + SIZE[1]))
                burn_in(frame, began + timedelta(seconds=number // _FRAMES_PER_SECOND))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()
