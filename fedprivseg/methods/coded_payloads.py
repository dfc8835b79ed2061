"""What sites send in coded segmentation: streams of codes, and what else may answer an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from fedprivseg.core.expected import MOST_CODE, Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, STATUS, KindSpec
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.task import Scope
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.method import Site
from fedprivseg.methods.shards import in_parts


@final
@dataclass(frozen=True)
class Stream:
    """Codes that a site sends in shards, view by view.

    Attributes:
        kind: of images or of masks.
        purpose: ``train``: augmented views of the training slices; ``infer``: mirrored and turned views of the test slices.
        history: what was done to them.
    """

    kind: KindSpec
    purpose: Literal["train", "infer"]
    history: tuple[str, ...]

    def payload(self, site: Site, codes: np.ndarray, number: int, shards: int) -> Payload:
        """Shard `number` of `shards`: codes (n, C, h, w) float16."""
        arrays = {"codes": codes}
        return Payload(self.kind, site.name, self.purpose, arrays, shard=number, shards=shards, history=self.history)

    def declared(self, method: Any, scope: Scope, order: Order) -> Expected:
        """What may answer the action that sends it."""
        p: PrivacySFParameters = method.parameters
        code = p.image_code(scope) if self.kind == IMAGE_CODE else p.mask_code(scope.grid)
        form = Array("float16", (None, *code), -MOST_CODE, MOST_CODE)
        views = p.views if self.purpose == "train" else p.test_views
        check = in_parts("train" if self.purpose == "train" else "test", views, p.shard_slices)
        return Expected(self.kind, self.purpose, {"codes": form}, self.history, views=views, check=check)


TRAIN_IMAGES = Stream(IMAGE_CODE, "train", ("view", "image encoder", "float16"))
TRAIN_MASKS = Stream(MASK_CODE, "train", ("view", "mask encoder", "float16"))
TEST_IMAGES = Stream(IMAGE_CODE, "infer", ("image encoder", "float16"))


def lost_declared(method: Any, scope: Scope, order: Order) -> Expected:
    """What ``fit_encoders`` sends: of image and mask encoder, which structures were lost."""
    return Expected(STATUS, "train", {"lost": Array("uint8", (2, len(scope.task.structures)), 0, 1)})


def refined_declared(method: Any, scope: Scope, order: Order) -> Expected:
    """What ``fit_refinement`` sends: which structures the refinement lost."""
    return Expected(STATUS, "train", {"lost": Array("uint8", (len(scope.task.structures),), 0, 1)})


def decoded(method: Any, scope: Scope, order: Order) -> Expected:
    """What ``decode`` sends: how many codes it decoded, which is as many as the server sent."""
    p: PrivacySFParameters = method.parameters
    return _heard("infer", "test", p.test_views, p.shard_slices)


def kept(method: Any, scope: Scope, order: Order) -> Expected:
    """What ``keep_answers`` sends: how many codes of answers it keeps, which is as many as the server sent."""
    p: PrivacySFParameters = method.parameters
    return _heard("train", "train", p.refinement_views, p.shard_slices)


def _heard(purpose: str, side: Literal["train", "test"], views: int, most: int) -> Expected:
    """What says that the answers to codes of so many views of the slices of one side came, in shards of at most `most`."""

    def check(payload: Payload, facts: Mapping[str, int]) -> str | None:
        said = int(payload.arrays["slices"][0])
        sent = min(most, views * facts[f"slices_{side}"] - payload.shard * most)
        return None if said == sent else f"it says that it decoded {said} codes of {sent}"

    return Expected(STATUS, purpose, {"slices": Array("int64", (1,), 0, most)}, check=check)
