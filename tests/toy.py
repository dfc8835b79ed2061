"""A method that asks for everything that a server knows, and learns nothing: what is tested with it is the server."""

from __future__ import annotations

import numpy as np

from fedprivseg.core.expected import MOST_CODE, Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, STATUS
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.task import Scope
from fedprivseg.methods.method import measured_declared
from fedprivseg.methods.shards import in_parts

SITES = ("centre1", "centre2", "centre3")
SHARD = 8
LOST = Expected(STATUS, "train", {"lost": Array("uint8", (2, 3), 0, 1)})
FORM = {"codes": Array("float16", (None, 2, 2), -MOST_CODE, MOST_CODE)}
STREAMS = {
    action: Expected(kind, "train", FORM, ("encode",), views=1, check=in_parts("train", 1, SHARD))
    for action, kind in {"send_images": IMAGE_CODE, "send_masks": MASK_CODE}.items()
}


class Toy:
    """A method that sends everything that the server of this package knows, and learns nothing."""

    def __init__(self) -> None:
        self.actions = {"fit": self.fit, "measure": self.measure}
        self.actions |= dict.fromkeys(STREAMS, self.send)

    @staticmethod
    def fit(method, site, order):
        return Payload(STATUS, site.name, "train", {"lost": np.zeros((2, 3), np.uint8)})

    @staticmethod
    def send(method, site, order):
        rows = (SHARD, 4)[order.number]  # of 12 slices
        kind, codes = STREAMS[order.action].kind, np.full((rows, 2, 2), 0.5, np.float16)
        return Payload(kind, site.name, "train", {"codes": codes}, shard=order.number, shards=2, history=("encode",))

    @staticmethod
    def measure(method, site, order):
        scores = np.zeros((4, 4, 32, 32), np.float32)
        return site.measure(scores)

    @staticmethod
    def conduct(federation):
        federation.ask("fit", LOST)
        images, masks = (federation.collect(name, expected) for name, expected in STREAMS.items())
        for site in federation.sites:
            assert len(images[site]) == len(masks[site]) == 12
            images[site].rows(np.arange(12))
        return federation.ask(
            "measure", measured_declared(None, Scope(federation.grid, federation.task), Order("measure"))
        )
