"""The hyper-parameters of coded segmentation: the paper's, and what the improved variant sets otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fedprivseg.core.compute import Half
from fedprivseg.core.records import Grid
from fedprivseg.core.task import Scope
from fedprivseg.methods.begin import StartParameters
from fedprivseg.nets.choices import VIEWS, Skips, code_shape


class PrivacySFParameters(StartParameters):
    """The paper's values as defaults; what it leaves open is marked (open)."""

    encoder: Literal["reconstruction", "task", "answer"] = Field(
        "reconstruction", description="what the image encoder is trained for; answer: its code is its own segmentation"
    )
    image_depth: int = Field(4, ge=1, le=4, description="down-samplings of the image encoder (Table 2: 4)")
    image_channels: int | None = Field(None, ge=1, description="channels of an image code; None: Table 2")
    mask_depth: int = Field(
        4,
        ge=1,
        le=4,
        description="down-samplings of the mask encoder (Table 2: 4); it reads one channel a structure, where the paper says "
        "no more than 'the ground-truth mask' (open)",
    )
    mask_channels: int | None = Field(None, ge=1, description="channels of a mask code; None: Table 2")
    image_folds: int = Field(0, ge=0, le=4, description="how many of them move pixels into channels instead of pooling")
    image_reconstruction: float = Field(0.0, ge=0, le=1, description="share of the image in a task encoder's loss")
    image_noise: float = Field(0.0, ge=0, description="noise on image codes while a task encoder is trained")
    opposition: float = Field(
        0.0,
        ge=0,
        description="adversarial training: what a task encoder pays for what inverters and probes can tell from its codes",
    )
    image_steps: int = Field(500, ge=1, description="optimiser steps of the image encoder (open)")
    image_rate: float = Field(2e-3, gt=0, description="its largest learning rate (open)")
    mask_folds: int = Field(0, ge=0, le=4, description="as image_folds")
    mask_steps: int = Field(250, ge=1, description="optimiser steps of the mask encoder (open)")
    mask_rate: float = Field(2e-3, gt=0, description="its largest learning rate (open)")
    mask_noise: float = Field(
        0.0, ge=0, description="noise on mask codes while the decoder is trained, in code deviations"
    )
    augmentation: bool = Field(
        False, description="whether the site augments while it trains its networks (the paper names none)"
    )
    views: int = Field(1, ge=1, le=64, description="codes sent of each training slice, each of another augmented view")
    plain_view: bool = Field(
        True,
        description="whether the first of them is of the slice as it is, which whoever has the slice finds again by its code",
    )
    trunk: Literal["over-complete", "unet"] = Field(
        "over-complete", description="the segmentation network (section 2.3)"
    )
    trunk_width: int = Field(128, ge=4, description="its channels at the code's grid (as Table 2)")
    trunk_levels: int = Field(4, ge=1, le=4, description="its up-samplings (as Table 2), or down-samplings for unet")
    trunk_skips: Skips = Field(
        "add",
        description="how the over-complete network joins encoder and decoder; add: as He 2016, which is cited (open)",
    )
    own_ends: bool = Field(
        False, description="whether each site has adapters of its own before and behind the shared backbone"
    )
    standardise: bool = Field(
        False, description="whether the server brings each channel to zero mean and unit deviation"
    )
    mapping_steps: int = Field(1000, ge=1, description="optimiser steps of the segmentation network (open)")
    mapping_rate: float = Field(2e-3, gt=0, description="its largest learning rate (open)")
    mapping_decay: float = Field(1e-2, ge=0, description="its weight decay (open)")
    mapping_averaging: float = Field(0.0, ge=0, lt=1, description="moving average of its weights; 0: none")
    test_views: int = Field(1, ge=1, le=len(VIEWS), description="views of a test slice that are sent and averaged")
    refinement_steps: int = Field(
        0,
        ge=0,
        description="optimiser steps of a network of the site that joins answer and image; 0: none (as the paper)",
    )
    refinement_input: Literal["answer", "none"] = Field(
        "answer",
        description="what it sees beside the image; none: zeros, a control that shows what the answer is worth",
    )
    refinement_rate: float = Field(3e-3, gt=0, description="its largest learning rate")
    refinement_views: int = Field(
        1, ge=1, le=64, description="views of each training slice for which it has an answer; at most `views`"
    )
    refinement_noise: float = Field(
        0.0, ge=0, description="noise on answers while it is trained, for the server knows these slices: in log-odds"
    )
    batch: int = Field(16, ge=2, description="slices a step (open)")
    half: Half = Field(
        "auto", description="bfloat16 arithmetic; auto: where the hardware has instructions for it (open)"
    )
    shard_slices: int = Field(256, ge=1, description="most slices in one shard")
    outlying: Literal["named", "left-out"] = Field(
        "named", description="what becomes of a site whose codes are unlike the others', or teach the server nothing"
    )
    outlying_spread: float = Field(
        4.0, gt=1, description="how many times more or less than at the median site its codes may spread"
    )
    outlying_error: float = Field(
        4.0, gt=1, description="how many times that of the median site the error on its mask codes may be"
    )

    @model_validator(mode="after")
    def _fitting_together(self) -> Self:
        if self.trunk == "over-complete" and self.trunk_width % 2**self.trunk_levels:
            raise ValueError(
                f"trunk_width is {self.trunk_width}, and an over-complete network halves it trunk_levels = {self.trunk_levels} "
                f"times: set a multiple of {2**self.trunk_levels}, or fewer levels"
            )
        if self.refinement_steps and self.refinement_views > self.views:
            raise ValueError(
                f"refinement_views is {self.refinement_views} and views is {self.views}: the server answers what it has; set "
                f"refinement_views to at most {self.views}"
            )
        if self.image_noise and self.encoder != "task":
            raise ValueError(
                f"image_noise is {self.image_noise:g} with encoder = {self.encoder!r}: only a task encoder is trained under "
                'noise; set encoder = "task" or image_noise = 0'
            )
        if self.encoder == "answer" and self.image_reconstruction:
            raise ValueError(
                f'encoder = "answer" with image_reconstruction = {self.image_reconstruction:g}: its code is one probability a '
                "structure and no image; set image_reconstruction = 0"
            )
        if self.opposition and (self.encoder != "task" or self.image_reconstruction):
            raise ValueError(
                f"opposition is {self.opposition:g} with encoder = {self.encoder!r} and image_reconstruction = "
                f"{self.image_reconstruction:g}: an encoder cannot be trained for the image and against it; "
                'set encoder = "task" and image_reconstruction = 0'
            )
        return self

    def image_code(self, scope: Scope) -> tuple[int, int, int]:
        """(C, h, w) of the code of an image."""
        channels = len(scope.task.structures) if self.encoder == "answer" else self.image_channels
        return code_shape(scope.grid.height, scope.grid.width, self.image_depth, channels)

    def mask_code(self, grid: Grid) -> tuple[int, int, int]:
        """(C, h, w) of the code of its mask."""
        return code_shape(grid.height, grid.width, self.mask_depth, self.mask_channels)


VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "improved": {
            "encoder": "task",
            "image_depth": 2,
            "image_folds": 2,
            "image_channels": 8,
            "image_steps": 300,
            "mask_depth": 2,
            "mask_folds": 1,
            "mask_channels": 4,
            "mask_steps": 200,
            "mask_noise": 1.5,
            "augmentation": True,
            "views": 16,
            "plain_view": False,
            "trunk": "unet",
            "trunk_width": 32,
            "trunk_levels": 3,
            "own_ends": True,
            "standardise": True,
            "mapping_steps": 3000,
            "mapping_rate": 4e-3,
            "mapping_decay": 5e-2,
            "mapping_averaging": 0.99,
            "test_views": 12,
        },
        "paper": {},
    }
)
"""What each variant sets; the first is the default."""
