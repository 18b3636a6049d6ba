"""Random crops and flips of a whole batch at once, on the device that holds the images.

The images are padded once. A crop is then a window into the padded set, so a batch is one gather of windows:
no loop over images, no loader process. Crop and flip are those of torchvision's `RandomCrop(size, padding)`
and `RandomHorizontalFlip`. They are drawn outside, on the CPU: every device gives the same pixels, and
workers that share a seed can each take their slice of one draw.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def draw(n: int, generator: torch.Generator, *, padding: int, flip: bool) -> tuple[Tensor, Tensor]:
    """Offsets int64 [n, 2] (row, column), uniform in 0..2 padding, and flips bool [n], one in two.

    The generator, on the CPU, advances equally with and without flips: no flips changes no other draw.
    """
    offsets = torch.randint(2 * padding + 1, (n, 2), generator=generator)
    flips = torch.randint(2, (n,), generator=generator).bool()
    return offsets, flips & flip


class AugmentedImages:
    """A set of images [N, C, H, W], of any device and dtype, served as cropped and flipped batches.

    Holds a copy, padded by zeros on each side. Without `flip` a batch is one gather and `flips` is ignored.
    """

    def __init__(self, images: Tensor, *, padding: int, flip: bool) -> None:
        _, channels, height, width = images.shape
        padded = F.pad(images, (padding,) * 4).contiguous()
        image, channel, row, pixel = padded.stride()
        last = (channels - 1) * channel + (height - 1) * row + (width - 1) * pixel
        # windows[s] is the [C, H, W] window that begins at element s of the padded set: a view, no copy
        shape = (padded.numel() - last, channels, height, width)
        self.windows = padded.as_strided(shape, (pixel, channel, row, pixel))
        self.strides = image, row
        self.flip = flip

    def batch(self, indices: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Images `indices` [B], cropped at `offsets` [B, 2] and mirrored where `flips` [B]: [B, C, H, W].

        The three may lie on another device than the images, which is not waited for. Offsets beyond 0..2 padding are
        not refused.
        """
        device = self.windows.device
        image, row = self.strides
        top, left = offsets.to(device, non_blocking=True).unbind(1)
        crops = self.windows.index_select(0, indices.to(device, non_blocking=True) * image + top * row + left)
        if not self.flip:
            return crops
        # choosing whole images out of both halves copies rows of bytes; torch.where would test every pixel
        both = torch.cat([crops, crops.flip(-1)])
        mirrored = flips.to(device, non_blocking=True)
        chosen = torch.arange(len(crops), device=device) + len(crops) * mirrored
        return both.index_select(0, chosen)
