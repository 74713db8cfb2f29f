"""Call `Gpu` from several threads on the pretend device; print how many of the answers are right, or the first error.

Run with the pretend runtime preloaded. The answer is made of copies on the device only, since there are no kernels: the
pixels themselves come back.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from trapline.model.device_errors import is_device_lost, is_device_out_of_memory
from trapline.model.gpu import Gpu
from trapline.model.hiera import Output


def answer(pixels: Tensor) -> Output:
    copies = [pixels]
    for _ in range(3):
        copies.append(torch.empty_like(pixels).copy_(copies[-1]))
    third = copies.pop()
    del copies  # their memory may be used again while the device still reads it, if it is not held
    return Output(third, torch.empty_like(third).copy_(third), {"stage1": torch.empty_like(third).copy_(third)})


def main(calls: int) -> None:
    device = Gpu(answer, torch.device("cuda"), print)

    def is_right(seed: int) -> bool:
        random = np.random.default_rng(seed)
        pixels = torch.from_numpy(random.integers(0, 256, (1 + seed % 4, 3, 32, 32), dtype=np.uint8))
        with torch.inference_mode():
            found = device(pixels, 4)
        parts = (found.logits, found.embedding, found.features["stage1"])
        return all(torch.equal(part, pixels) for part in parts)

    right = 0
    for threads in (1, 2, 3, 8):
        with ThreadPoolExecutor(threads) as pool:
            right += sum(pool.map(is_right, range(calls)))
    print(f"{right} of {4 * calls}")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except RuntimeError as error:
        print(type(error).__name__, f"lost: {is_device_lost(error)}, full: {is_device_out_of_memory(error)}")
