"""One slice on its way: encoded at the site, mapped at the server, decoded at the site; and what travels."""

from __future__ import annotations

import torch
from timing import seconds_of
from training import STRUCTURES

from fedprivseg.core.seeds import building
from fedprivseg.nets.codec import Codec
from fedprivseg.nets.mapping import OverComplete

MOST_MS, MOST_BYTES = 5.0, 64 * 1024
"""The goals: ms a slice for all three, bytes both ways."""


@torch.inference_mode()
def rows(device: str, side: int, batches: tuple[int, ...]) -> list[list[str]]:
    """For each number of slices at a time: ms a slice of each step and of all, and bytes a slice."""
    with building(0, "device benchmark"):
        image, mask, mapping = Codec(1, 1), Codec(STRUCTURES, STRUCTURES), OverComplete(128, 128)
    nets = [net.to(device, memory_format=torch.channels_last).eval() for net in (image.encoder, mapping, mask.decoder)]
    found = []
    for batch in batches:
        given = torch.rand(batch, 1, side, side, device=device)
        spent, sent = [], []
        for net in nets:
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=device.startswith("cuda")):
                spent.append(1e3 * seconds_of(lambda n=net, g=given: n(g), device) / batch)
                given = net(given).contiguous(memory_format=torch.channels_last)
            sent.append(2 * given[0].numel())
        total, size = sum(spent), sent[0] + sent[1]
        kept = "yes" if total <= MOST_MS and size <= MOST_BYTES else "no"
        found.append([str(batch), *(f"{ms:.3f}" for ms in (*spent, total)), f"{size:,}", kept])
    return found
