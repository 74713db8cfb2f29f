"""The values that options choose among; without the machinery of `config`, which takes workers 0.1 s to import."""

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "checked"]
DecodeMode = Literal["exact", "close", "fast", "fastest"]
Stage = Literal["stage1", "stage2", "stage3", "stage4"]
