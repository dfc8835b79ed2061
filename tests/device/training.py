"""Steps of every network: as it is, in half precision, as a CUDA graph, compiled; and whether they agree with the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peak import Peak, work_of
from timing import seconds_of
from torch import nn

from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.codec import Codec
from fedprivseg.nets.mapping import OverComplete
from fedprivseg.nets.unet import UNet

STRUCTURES = 3

Ways = dict[str, tuple[bool, bool, bool]]
WAYS: Ways = {
    "float32": (False, False, False),
    "bfloat16": (True, False, False),
    "bfloat16, CUDA graph": (True, True, False),
    "bfloat16, compiled": (True, False, True),
}
"""Way -> in half precision, replayed, compiled. All are channels_last."""


@dataclass(frozen=True)
class Subject:
    """A network under test: how it is made, and the shape (channels, side) of what goes in and of what is wanted."""

    make: Callable[[], nn.Module]
    inputs: tuple[int, int]
    outputs: tuple[int, int]


def subjects(side: int) -> dict[str, Subject]:
    """Every network of the default methods, for slices of `side` pixels: those of the paper's coded segmentation, the U-Net of
    averaging."""
    code = side // 16
    return {
        "U-Net": Subject(lambda: UNet(1, STRUCTURES + 1), (1, side), (STRUCTURES + 1, side)),
        "image codec": Subject(lambda: Codec(1, 1), (1, side), (1, side)),
        "mask codec": Subject(lambda: Codec(STRUCTURES, STRUCTURES), (STRUCTURES, side), (STRUCTURES, side)),
        "over-complete": Subject(lambda: OverComplete(128, 128), (128, code), (128, code)),
    }


class Training:
    """One network with its optimiser on one batch.

    Args:
        subject: the network.
        device: torch device.
        batch: slices.
        way: one of `WAYS`.
    """

    def __init__(self, subject: Subject, device: str, batch: int, way: tuple[bool, bool, bool]) -> None:
        self._half, self._replayed, compiled = way
        with building(0, "device benchmark"):
            self.net = subject.make().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        draws = torch_generator(0, "device benchmark", "batch")
        self.images, self.wanted = (
            torch.rand(batch, channels, side, side, generator=draws)
            .to(device)
            .contiguous(memory_format=torch.channels_last)
            for channels, side in (subject.inputs, subject.outputs)
        )
        self._steps = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)
        self._call = torch.compile(self.net) if compiled else self.net
        self._device = device
        self.loss = torch.zeros(())
        self.step = self._recorded() if self._replayed else self._step

    def _step(self) -> None:
        self._steps.zero_grad(set_to_none=True)
        with torch.autocast(self._device.split(":")[0], torch.bfloat16, enabled=self._half):
            answer = self._call(self.images)
        self.loss = nn.functional.mse_loss(answer.float(), self.wanted)
        self.loss.backward()
        self._steps.step()

    def _recorded(self) -> Callable[[], Any]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay


def rows(device: str, peak: Peak, side: int, batches: tuple[int, ...]) -> list[list[str]]:
    """For each network, batch and way: slices a second, and the share of what the roofline allows."""
    found = []
    for name, subject in subjects(side).items():
        for batch in batches:
            for way, how in WAYS.items():
                if (how[1] or how[2]) and not device.startswith("cuda"):
                    continue
                found.append([name, str(batch), way, *_row(subject, device, batch, how, peak)])
    return found


def _row(subject: Subject, device: str, batch: int, how: tuple[bool, bool, bool], peak: Peak) -> list[str]:
    try:
        flops, moved = work_of(Training(subject, device, batch, (how[0], False, False)).step)
        seconds = seconds_of(Training(subject, device, batch, how).step, device)
    except Exception as fault:  # one way that fails leaves the others
        return ["-", "-", f"{type(fault).__name__}: {str(fault).splitlines()[0][:60]}"]
    least = peak.least_s(flops, moved, how[0])
    return [f"{batch / seconds:,.0f}", f"{flops / seconds / 1e12:.3f}", f"{100 * least / seconds:.0f} %"]


def differences(device: str, side: int, steps: int) -> list[list[str]]:
    """For each network and way: how far the loss lies from the CPU's in float32 after so many steps, as a share of it."""
    found = []
    for name, subject in subjects(side).items():
        losses = {}
        for where, way in (("cpu", "float32"), (device, "float32"), (device, "bfloat16")):
            training = Training(subject, where, 8, WAYS[way])
            for _ in range(steps):
                training.step()
            losses[where, way] = float(training.loss.detach())
        right = losses["cpu", "float32"]
        found.append([name, *(f"{abs(losses[device, way] - right) / right:.1e}" for way in ("float32", "bfloat16"))])
    return found
