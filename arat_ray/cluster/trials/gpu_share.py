"""GPU share: several trials on one GPU, of which none takes the memory of another."""

from __future__ import annotations

import torch

from arat_ray.experiment import at_hand
from arat_ray.training.memory_forecast import OVERHEAD, forecast
from arat_ray.training.run import Train, Validate

GIB = 2**30


def keep_to(share: float, device: torch.device, train: Train, validate: Validate) -> None:
    """Keep this process to its share of a GPU's memory: a trial that wants more then fails, and it alone.

    Raises ValueError where the tensors of the trial are forecast not to fit, before anything is computed. bfloat16 is
    not forecast, so such a trial is let try. Without effect for whole GPUs.
    """
    if device.type != "cuda" or not 0 < share < 1:
        return
    total = torch.cuda.get_device_properties(device).total_memory
    room = share * total - OVERHEAD[1]
    number = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_per_process_memory_fraction(max(room, 0) / total, number)
    if "bf16" in (train.precision.attack, train.precision.update):
        return
    needed = forecast(train, validate, images=at_hand.training_images(train, validate)).most
    if needed > room:
        raise ValueError(
            f"its tensors take {needed / GIB:.1f} GiB, and resources.gpus_per_worker: {share:g} of a GPU of "
            f"{total / GIB:.1f} GiB leaves {max(room, 0) / GIB:.1f}; raise it, or lower train.batch_size"
        )
