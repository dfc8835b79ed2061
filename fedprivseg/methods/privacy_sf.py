"""Coded segmentation (Chen et al. 2024): sites train encoders alone, the server learns to segment on codes alone.

Three networks, none of which needs gradients or features of another (section 2.3). A site trains an image and a mask
encoding network and keeps both; the codes of its training slices go to the server; the server trains a segmentation
network from image codes to mask codes (section 2.4). To segment a slice, the site sends its code, the server answers with
the predicted mask code, and the site decodes that with its own decoder.

``variant = "paper"`` is that and no more. ``variant = "improved"`` changes what the ablation showed to pay: the image
encoder is trained for the mask instead of the image; codes lie on a finer grid; each slice is sent in several augmented
views, since a code cannot be augmented later; mask decoders are trained under noise, since a predicted code is always a
little off; and every site has its own adapters around one shared backbone. Each site's encoders stay its own.

With ``refinement_steps``, of either variant, a site makes its final segmentation from the server's answer and the image itself,
by a network of its own (`coded_refinement`). For its training the server answers codes of training slices that it already
holds; nothing but a status leaves for it.

The halves: `coded_site` with `coded_encoders` at a site, `coded_mapping` at the server. They load torch; this module, which
says what there is to ask, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, METRIC, STATUS, KindSpec
from fedprivseg.core.method_card import Sent, What
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Grid, Order, Payload, Slices
from fedprivseg.core.task import Scope, SegmentationTask
from fedprivseg.methods.begin import BEGIN, BEGINS, begin_all
from fedprivseg.methods.coded_parameters import VARIANTS, PrivacySFParameters
from fedprivseg.methods.coded_payloads import (
    TEST_IMAGES,
    TRAIN_IMAGES,
    TRAIN_MASKS,
    decoded,
    kept,
    lost_declared,
    refined_declared,
)
from fedprivseg.methods.effort import (
    IMAGE_CODEC_S,
    MAPPING_S,
    MASK_CODEC_S,
    OVER_COMPLETE_S,
    TASK_ENCODER_S,
    UNET_S,
    Effort,
    training_s,
)
from fedprivseg.methods.method import (
    Action,
    Answers,
    CodedMethod,
    Codes,
    Declaration,
    Federation,
    Site,
    measured_declared,
    trainers,
)
from fedprivseg.methods.public_start import Progress, PublicStart
from fedprivseg.nets.choices import ATTEMPTS

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.fitting_mapping import SiteMapping


_LATER = frozenset(
    {f"{net}_{what}" for net in ("image", "mask", "mapping", "refinement") for what in ("steps", "rate")}
    | {"mapping_averaging", "views", "test_views", "shard_slices", "augmentation", "plain_view", "averaging"}
    | {"refinement_input", "refinement_noise", "refinement_views"}
    | {"outlying", "outlying_spread", "outlying_error"}
)
"""Parameters of which the public start does not depend."""


def _at_site(name: str) -> Action:
    """The action of that name, whose code is imported when a site first carries it out."""

    def action(method: PrivacySF, site: Site, order: Order) -> Payload:
        from fedprivseg.methods.coded_site import ACTIONS

        return ACTIONS[name](method.parameters, site, order)

    return action


@final
class PrivacySF(CodedMethod):
    """Coded segmentation: encoders at the sites, a segmentation network on codes at the server."""

    name = "privacy-sf"
    title = "Coded segmentation"
    paper = "Chen et al. 2024, doi 10.12114/j.issn.1007-9572.2023.0897"
    exports: ClassVar[frozenset[KindSpec]] = frozenset({IMAGE_CODE, MASK_CODE, METRIC, STATUS})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    parameters_type = PrivacySFParameters
    parameters: PrivacySFParameters
    declares: ClassVar[Mapping[str, Declaration]] = {
        **BEGINS,
        "fit_encoders": lost_declared,
        "send_image_codes": TRAIN_IMAGES.declared,
        "send_mask_codes": TRAIN_MASKS.declared,
        "keep_answers": kept,
        "fit_refinement": refined_declared,
        "send_test_codes": TEST_IMAGES.declared,
        "decode": decoded,
        "measure": measured_declared,
    }
    actions: ClassVar[Mapping[str, Action]] = {
        **{name: _at_site(name) for name in declares},
        **BEGIN,
    }
    sends = (
        Sent("send_test_codes", "images", "test", shuffled=True),
        Sent("send_image_codes", "images", "train", shuffled=True),
        Sent("send_mask_codes", "masks", "train", shuffled=True),
    )

    def check(self, task: SegmentationTask) -> None:
        """An answer encoder has one channel a structure. Raises ScenarioError."""
        p, needed = self.parameters, len(task.structures)
        if p.encoder == "answer" and p.image_channels not in (None, needed):
            raise ScenarioError(
                f'encoder = "answer" with image_channels = {p.image_channels}: its code is one probability a structure; set '
                f"image_channels = {needed}"
            )

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """Steps of both encoders at a site, and of the segmentation network at the server."""
        p = self.parameters
        image = IMAGE_CODEC_S if p.encoder == "reconstruction" else TASK_ENCODER_S
        site = training_s(image, p.image_steps, p.batch, grid) + training_s(MASK_CODEC_S, p.mask_steps, p.batch, grid)
        site += training_s(UNET_S, p.refinement_steps, p.batch, grid)
        mapping = MAPPING_S if p.trunk == "unet" else OVER_COMPLETE_S
        return Effort(site, training_s(mapping, p.mapping_steps, p.batch, grid))

    @property
    def needs_labels(self) -> bool:
        """See `Method`: without a public start, and without masks, a site has nothing."""
        return self.parameters.start == "random"

    def public_start(self, scope: Scope) -> PublicStart | None:
        """Both encoding networks and the segmentation network. What is done with them later changes no start."""
        p = self.parameters
        if p.start == "random":
            return None
        chosen = {name: value for name, value in p.model_dump(mode="json").items() if name not in _LATER}

        def fit(slices: Slices, device: str, progress: Progress) -> dict[str, np.ndarray]:
            from fedprivseg.methods.coded_start import coded_start

            return coded_start(p, scope, slices, device, progress)

        return PublicStart({"coded": chosen}, p.start_subjects, fit)

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Send the public start, if there is one, then go through the paper's sections."""
        begin_all(self, federation)
        return self.carry_out(federation)

    def carry_out(self, federation: Federation) -> dict[str, Payload]:
        """Sections 2.4 and 2.5: fit encoders at the sites, send codes, train the mapping, infer, decode, measure."""
        from fedprivseg.methods.coded_mapping import trained_mapping

        p = self.parameters
        with federation.stage("fit encoders"):
            for site, payload in self.ask(federation, "fit_encoders").items():
                for row, net in enumerate(("image encoding network", "mask encoding network")):
                    _note_lost(federation, site, net, payload.arrays["lost"][row])
        with federation.stage("send codes"):
            images = self.collect(federation, "send_image_codes")
            masks = self.collect(federation, "send_mask_codes")
        with federation.stage("train mapping"):
            mapping = trained_mapping(p, federation, images, masks)
        if p.refinement_steps:
            with federation.stage("refine"):
                if p.refinement_input == "answer":
                    self._answer(federation, mapping, "keep_answers", images, _first(federation, p.refinement_views))
                for site, payload in self.ask(federation, "fit_refinement", sites=trainers(federation)).items():
                    _note_lost(federation, site, "refinement", payload.arrays["lost"])
        with federation.stage("infer"):
            codes = self.collect(federation, "send_test_codes")
            self._answer(federation, mapping, "decode", codes, {site: len(codes[site]) for site in federation.sites})
        with federation.stage("measure"):
            return self.ask(federation, "measure")

    def _answer(
        self,
        federation: Federation,
        mapping: SiteMapping,
        action: str,
        codes: Mapping[str, Codes],
        counts: Mapping[str, int],
    ) -> None:
        """Answer the first `counts[site]` of each site's image codes with mask codes, some at a time, as orders of `action`."""
        from fedprivseg.methods.coded_mapping import answer

        p = self.parameters
        for number, start in enumerate(range(0, max(counts.values(), default=0), p.shard_slices)):

            def made(site: str, number: int = number, start: int = start) -> Payload:
                rows = np.arange(start, min(start + p.shard_slices, counts[site]))
                found = answer(p, mapping, site, codes[site].rows(rows), federation.device)
                return federation.answer(MASK_CODE, site, {"codes": found}, number)

            answers = Answers((site for site in federation.sites if counts[site] > start), made)
            self.ask(federation, action, number=number, answers=answers, sites=list(answers))

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, C, H, W) for slices (N, H, W) float32 in 0..1: encode, map, decode, average the views."""
        from fedprivseg.methods.coded_mapping import answer, kept_mapping
        from fedprivseg.methods.coded_site import predict

        mapping = kept_mapping(self.parameters, site.task, models)
        asked = partial(answer, self.parameters, mapping, site.name, device=site.device)
        return predict(self.parameters, site, asked, images)

    def encode_pictures(self, site: Site, what: What, pictures: np.ndarray) -> np.ndarray:
        """See `CodedMethod`."""
        from fedprivseg.methods.coded_encoders import encode_at

        return encode_at(self.parameters, site, what, pictures)

    def decode_pictures(self, site: Site, what: What, codes: np.ndarray) -> np.ndarray | None:
        """See `CodedMethod`. A task encoder without a share of the image has no image decoder."""
        from fedprivseg.methods.coded_encoders import decode_images, decode_masks

        if what == "masks":
            return decode_masks(self.parameters, site, codes)[:, 1:]
        return decode_images(self.parameters, site, codes)

    def views(self, sent: Sent) -> int:
        """See `CodedMethod`. Views of test slices are fixed; those of training slices are drawn at the site."""
        return self.parameters.test_views if sent.side == "test" else 1

    def upright(self, pictures: np.ndarray, view: int) -> tuple[np.ndarray, np.ndarray]:
        """See `CodedMethod`."""
        from fedprivseg.nets.test_time import upright
        from fedprivseg.nets.test_time import view as seen

        reach = seen(np.ones((1, *pictures.shape[2:]), np.float32), view)[:, None]
        return upright(pictures, view), upright(reach, view)[0, 0]

    def first_view(self, site: Site, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `CodedMethod`. Without `plain_view` it is an augmented one."""
        from fedprivseg.methods.coded_site import first_view

        return first_view(self.parameters, site, images, masks)

    def answers(self, site: Site, models: ModelStore, codes: np.ndarray) -> np.ndarray | None:
        """See `CodedMethod`."""
        from fedprivseg.methods.coded_mapping import answer, kept_mapping

        mapping = kept_mapping(self.parameters, site.task, models)
        rows = range(0, len(codes), self.parameters.shard_slices)
        parts = [codes[start : start + self.parameters.shard_slices] for start in rows]
        return np.concatenate([answer(self.parameters, mapping, site.name, part, site.device) for part in parts])

    def architecture(self, what: What, task: SegmentationTask) -> nn.Module:
        """See `CodedMethod`."""
        from fedprivseg.methods.coded_encoders import untrained_encoder

        return untrained_encoder(self.parameters, what, task)


def _first(federation: Federation, views: int) -> dict[str, int]:
    """How many rows of each site's stream of training codes the first so many views are."""
    return {site: views * federation.facts(site)["slices_train"] for site in federation.sites}


def _note_lost(federation: Federation, site: str, net: str, lost: np.ndarray) -> None:
    names = [name for name, gone in zip(federation.task.names, lost, strict=True) if gone]
    if names:
        trainings = f"each of {ATTEMPTS} trainings" if net != "refinement" else "its training"
        federation.note(site, f"the {net} lost {', '.join(names)} in {trainings} (Dice below 0.05)")
