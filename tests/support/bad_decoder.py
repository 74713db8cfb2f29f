"""A decoder with a fault, for worker processes: three BMPs of agreed widths make it crash, hang, or starve for memory.

A folder with `sitecustomize.py` on PYTHONPATH is how the fault gets into processes that others start; what happens to
the process is real.
"""

from io import BytesIO
from pathlib import Path

from PIL import Image

# Widths of the pictures that set it off.
CRASH, HANG, STARVE = 61, 62, 63

_SITECUSTOMIZE = f"""
import os, signal, time
from PIL import BmpImagePlugin

class Faulty(BmpImagePlugin.BmpImageFile):
    def load(self):
        if self.width == {CRASH}:
            os.kill(os.getpid(), signal.SIGSEGV)
        while self.width == {HANG}:
            time.sleep(1)
        taken = []
        while self.width == {STARVE}:
            taken.append(bytes(64 * 2**20))  # which counts, and is never touched
        return super().load()

BmpImagePlugin.Image.register_open("BMP", Faulty, BmpImagePlugin._accept)
BmpImagePlugin.Image.OPEN["BMP"] = (Faulty, BmpImagePlugin._accept)
"""


def write_saboteur(folder: Path) -> str:
    """A value for PYTHONPATH."""
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return str(folder)


def bmp(width: int) -> bytes:
    """A sound picture."""
    sink = BytesIO()
    Image.new("RGB", (width, 40), (90, 120, 60)).save(sink, "BMP")
    return sink.getvalue()
