"""Coded segmentation with encoders that all sites trained together: averaging first, then codes.

The encoders begin from phantoms. The image encoder, a segmentation network whose coarse answer is the code, is trained by
averaging under secure aggregation: while it is trained, no server holds one site's weights, or one patient's code. Codes of all
sites are then of one space, and the server's network needs no adapters. What leaves slice by slice is what a site's own answer
says: coarse, in an order of the site's own, and under the scenario's protections. Where ``refinement_steps`` says so, a small
network that never leaves the site makes one segmentation of the server's answer and the image.

It is put together from two methods, `FedAvg` and `PrivacySF`, each of which does its half as it does alone. So each piece can
be left out and measured: encoders of each site alone are ``privacy-sf`` with ``encoder = "answer"``, averaging without codes
is ``fedavg`` with ``tune_steps``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from pydantic import Field

from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import STATUS, KindSpec
from fedprivseg.core.method_card import Sent, What
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Grid, Order, Payload, Slices
from fedprivseg.core.task import Scope, SegmentationTask
from fedprivseg.methods.averaging import FedAvg
from fedprivseg.methods.begin import BEGIN, BEGINS, begin_all
from fedprivseg.methods.coded_parameters import VARIANTS, PrivacySFParameters
from fedprivseg.methods.effort import Effort
from fedprivseg.methods.method import Action, CodedMethod, Declaration, Federation, Method, Progress, Site
from fedprivseg.methods.privacy_sf import PrivacySF
from fedprivseg.methods.public_start import PublicStart
from fedprivseg.methods.rounds import Rounds, tune
from fedprivseg.methods.training import NET, SummableParameters, build, packed, prefixed, unpacked

if TYPE_CHECKING:
    from torch import nn


class AveragingParameters(SummableParameters):
    """As for federated averaging; from a public start fewer and smaller steps are enough. The start is the method's own."""

    summation: Literal["float", "fixed-point", "secure"] = Field("secure", description="as for fedavg")
    rounds: int = Field(10, ge=1, description="rounds")
    local_steps: int = Field(25, ge=1, description="optimiser steps of a site in a round")
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="as for fedavg")
    rate: float = Field(1e-3, gt=0, description="learning rate of the first step")


class CodedFederatedParameters(PrivacySFParameters):
    """Those of coded segmentation, and those of the averaging before it."""

    averaging: AveragingParameters = Field(
        AveragingParameters.model_validate({}), description="how the image encoder is trained by all sites together"
    )


CODED: Mapping[str, Any] = MappingProxyType(
    {
        **VARIANTS["improved"],
        "encoder": "answer",
        "start": "phantom",
        "image_channels": None,
        "image_folds": 0,
        "image_reconstruction": 0.0,
        "image_depth": 2,
        "own_ends": False,
        "views": 4,
        "mapping_steps": 400,
        "mapping_rate": 1e-3,
        "test_views": 4,
    }
)
"""What its one variant sets: the improved variant's, on codes that are answers of a network that all share."""


def adopt(method: CodedFederated, site: Site, order: Order) -> Payload:
    """Take the network that all sites trained for the image encoder, fine-tuned here if the parameters ask for it, and the mask
    encoding network of the public start."""
    from fedprivseg.methods.coded_encoders import adopt_networks
    from fedprivseg.nets.baseline import load_weights

    net = build(method.averaging.parameters, site)
    load_weights(net, unpacked(order)[0])
    tune(method.averaging.parameters, site, net)
    adopt_networks(method.coding.parameters, site, net)
    return Payload(STATUS, site.name, "train", {"adopted": np.ones(1, np.uint8)})


ADOPTED = Expected(STATUS, "train", {"adopted": Array("uint8", (1,), 1, 1)})
"""What `adopt` sends."""


def _of(part: str, actions: Mapping[str, Action]) -> dict[str, Action]:
    """The actions of one of the two methods, as actions of the whole."""

    def made(name: str) -> Action:
        def action(method: CodedFederated, site: Site, order: Order) -> Payload:
            one: Method = getattr(method, part)
            return actions[name](one, site, order)

        return action

    return {name: made(name) for name in actions if name not in BEGIN}


def _declared_by(part: str, declares: Mapping[str, Declaration]) -> dict[str, Declaration]:
    """Their declarations."""

    def made(name: str) -> Declaration:
        def declared(method: CodedFederated, scope: Scope, order: Order) -> Expected:
            found = getattr(method, part).expected(order, scope)
            assert isinstance(found, Expected), name
            return found

        return declared

    return {name: made(name) for name in declares if name not in BEGINS}


_AVERAGING = frozenset({"measure", "account"})
"""Actions of the averaging that are not asked for: it is measured after the codes."""


@final
class CodedFederated(CodedMethod):
    """Coded segmentation with encoders that were trained by secure averaging."""

    name = "coded-federated"
    title = "Coded segmentation, federated encoders"
    paper = "this package, after Chen et al. 2024 and McMahan et al., AISTATS 2017"
    exports: ClassVar[frozenset[KindSpec]] = FedAvg.exports | PrivacySF.exports
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({"default": CODED})
    parameters_type = CodedFederatedParameters
    parameters: CodedFederatedParameters
    actions: ClassVar[Mapping[str, Action]] = {
        **BEGIN,
        "adopt": adopt,
        **{name: action for name, action in _of("averaging", FedAvg.actions).items() if name not in _AVERAGING},
        **_of("coding", PrivacySF.actions),
    }
    declares: ClassVar[Mapping[str, Declaration]] = {
        **BEGINS,
        "adopt": ADOPTED,
        **{name: one for name, one in _declared_by("averaging", FedAvg.declares).items() if name not in _AVERAGING},
        **_declared_by("coding", PrivacySF.declares),
    }
    sends: ClassVar[tuple[Sent, ...]] = PrivacySF.sends

    def __init__(self, variant: str, parameters: CodedFederatedParameters) -> None:
        super().__init__(variant, parameters)
        start = {name: getattr(parameters, name) for name in ("start", "start_subjects", "start_steps", "start_rate")}
        self.averaging = FedAvg("default", parameters.averaging.model_copy(update=start))
        self.coding = PrivacySF("improved", parameters)

    @property
    def declared(self) -> frozenset[KindSpec]:
        """Those of both halves."""
        return self.averaging.declared | self.coding.declared

    @property
    def in_rounds(self) -> Rounds:
        """See `Method`."""
        return self.averaging

    def announced(self, order: Order) -> Mapping[str, np.ndarray] | None:
        """The public start, and the aggregates."""
        return self.averaging.announced(order)

    def check(self, task: SegmentationTask) -> None:
        """The network that is averaged is the one whose answer is the code. Raises ScenarioError."""
        p = self.parameters
        if p.encoder != "answer":
            raise ScenarioError(
                f'coded-federated has encoder = "answer", and is given {p.encoder!r}: a network that segments is averaged'
            )
        if (p.averaging.net, p.averaging.norm, p.averaging.dp) != ("unet", "batch", None):
            raise ScenarioError(
                'coded-federated averages the network whose answer is the code: averaging.net = "unet", averaging.norm = '
                f'"batch" and no averaging.dp; given are {p.averaging.net!r}, {p.averaging.norm!r} and {p.averaging.dp}'
            )
        self.coding.check(task)

    @property
    def needs_labels(self) -> bool:
        """See `PrivacySF`."""
        return self.coding.needs_labels

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """The rounds, and the server's network; encoders are not trained again."""
        rounds, coded = self.averaging.effort(grid, slices), self.coding.effort(grid, slices)
        return None if rounds is None or coded is None else Effort(rounds.site, coded.server)

    def public_start(self, scope: Scope) -> PublicStart | None:
        """That of coded segmentation; its image encoder is where the averaging begins."""
        coded = self.coding.public_start(scope)
        if coded is None:
            return None

        def fit(slices: Slices, device: str, progress: Progress) -> dict[str, np.ndarray]:
            from fedprivseg.methods.coded_encoders import IMAGE

            found, prefix = coded.fit(slices, device, progress), f"{IMAGE}/encoder."
            return found | prefixed(
                NET, {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
            )

        return PublicStart({**coded.recipe, "averaged": True}, coded.subjects, fit)

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Average, let every site take the network as its encoder, then go on as coded segmentation does."""
        begin_all(self, federation)
        arrays = self.averaging.trained(federation)
        with federation.stage("take encoders"):
            self.ask(federation, "adopt", answers=packed(federation, arrays, {}, 0))
        return self.coding.carry_out(federation)

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """See `PrivacySF`."""
        return self.coding.predict(site, models, images)

    def encode_pictures(self, site: Site, what: What, pictures: np.ndarray) -> np.ndarray:
        """See `CodedMethod`."""
        return self.coding.encode_pictures(site, what, pictures)

    def decode_pictures(self, site: Site, what: What, codes: np.ndarray) -> np.ndarray | None:
        """See `CodedMethod`."""
        return self.coding.decode_pictures(site, what, codes)

    def views(self, sent: Sent) -> int:
        """See `CodedMethod`."""
        return self.coding.views(sent)

    def upright(self, pictures: np.ndarray, view: int) -> tuple[np.ndarray, np.ndarray]:
        """See `CodedMethod`."""
        return self.coding.upright(pictures, view)

    def first_view(self, site: Site, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `CodedMethod`."""
        return self.coding.first_view(site, images, masks)

    def answers(self, site: Site, models: ModelStore, codes: np.ndarray) -> np.ndarray | None:
        """See `CodedMethod`."""
        return self.coding.answers(site, models, codes)

    def architecture(self, what: What, task: SegmentationTask) -> nn.Module:
        """See `CodedMethod`."""
        return self.coding.architecture(what, task)
