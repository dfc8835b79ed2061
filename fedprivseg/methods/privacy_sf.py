"""Coded segmentation (Chen et al. 2024): sites train encoders alone, the server learns to segment on codes alone.

Three networks, none of which needs gradients or features of another (section 2.3). A site trains an image and a mask
encoding network and keeps both; the codes of its training slices go to the server; the server trains a segmentation
network from image codes to mask codes (section 2.4). To segment a slice, the site sends its code, the server answers with
the predicted mask code, and the site decodes that with its own decoder.

``variant = "paper"`` is that and no more. ``variant = "improved"`` changes what the ablation showed to pay: the image
encoder is trained for the mask instead of the image; codes lie on a finer grid; each slice is sent in several augmented
views, since a code cannot be augmented later; mask decoders are trained under noise, since a predicted code is always a
little off; and every site has its own entrance and exit around one shared trunk. Each site's encoders stay its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

import numpy as np
from pydantic import Field, model_validator

from fedprivseg.core.compute import Half
from fedprivseg.core.errors import FolderError, ScenarioError
from fedprivseg.core.expected import MOST_CODE, Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, METRIC, STATUS, KindSpec
from fedprivseg.core.method_card import Sent, What
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Grid, Order, Payload
from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.core.task import Scope, SegmentationTask
from fedprivseg.methods.effort import IMAGE_CODEC_S, MAPPING_S, MASK_CODEC_S, TASK_ENCODER_S, Effort, training_s
from fedprivseg.methods.method import (
    Action,
    CodedMethod,
    Codes,
    Declaration,
    Federation,
    Parameters,
    Site,
    in_parts,
    measured_declared,
    part_of,
    shards_of,
)
from fedprivseg.nets.choices import VIEWS

if TYPE_CHECKING:
    import torch

    from fedprivseg.nets.codec import Codec, Encoder
    from fedprivseg.nets.fitting import AnswerEncoder, Fitting, TaskEncoder
    from fedprivseg.nets.fitting_mapping import SiteMapping


class PrivacySFParameters(Parameters):
    """The paper's values as defaults; what it leaves open is marked (open)."""

    encoder: Literal["reconstruction", "task", "answer"] = Field(
        "reconstruction", description="what the image encoder is trained for; answer: its code is its own segmentation"
    )
    image_depth: int = Field(4, ge=1, le=4, description="down-samplings of the image encoder (Table 2: 4)")
    image_channels: int | None = Field(None, ge=1, description="channels of an image code; None: Table 2")
    mask_depth: int = Field(4, ge=1, le=4, description="down-samplings of the mask encoder (Table 2: 4)")
    mask_channels: int | None = Field(None, ge=1, description="channels of a mask code; None: Table 2")
    image_folds: int = Field(0, ge=0, le=4, description="how many of them fold pixels into channels instead of pooling")
    image_reconstruction: float = Field(0.0, ge=0, le=1, description="share of the image in a task encoder's loss")
    image_noise: float = Field(0.0, ge=0, description="noise on image codes while a task encoder is trained")
    opposition: float = Field(
        0.0,
        ge=0,
        description="what a task encoder pays for what an inverter and attribute probes can tell from its codes",
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
        False, description="whether the site augments while it trains its encoders (the paper names none)"
    )
    views: int = Field(1, ge=1, le=64, description="codes sent of each training slice: itself, then augmented copies")
    trunk: Literal["over-complete", "unet"] = Field(
        "over-complete", description="the segmentation network (section 2.3)"
    )
    trunk_width: int = Field(128, ge=4, description="its channels at the code's grid (open)")
    trunk_levels: int = Field(2, ge=1, le=4, description="its up-samplings, or down-samplings for unet (open)")
    own_ends: bool = Field(False, description="whether each site has its own 1x1 entrance and exit of the trunk")
    standardise: bool = Field(
        False, description="whether the server brings each channel to zero mean and unit deviation"
    )
    mapping_steps: int = Field(1000, ge=1, description="optimiser steps of the segmentation network (open)")
    mapping_rate: float = Field(2e-3, gt=0, description="its largest learning rate (open)")
    mapping_decay: float = Field(1e-2, ge=0, description="its weight decay (open)")
    mapping_averaging: float = Field(0.0, ge=0, lt=1, description="moving average of its weights; 0: none")
    test_views: int = Field(1, ge=1, le=len(VIEWS), description="views of a test slice that are sent and averaged")
    batch: int = Field(16, ge=2, description="slices a step (open)")
    half: Half = Field(
        "auto", description="bfloat16 arithmetic; auto: where the hardware has instructions for it (open)"
    )
    shard_slices: int = Field(256, ge=1, description="most slices in one shard")

    @model_validator(mode="after")
    def _fitting_together(self) -> Self:
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


def fit_encoders(method: PrivacySF, site: Site, order: Order) -> Payload:
    """Train both encoding networks on this site's slices alone (section 2.4, step 1). Says which structures were lost."""
    from fedprivseg.nets.fitting import sound

    if not site.vault.has("image-codec"):
        _keep(site, "image-codec", *sound(partial(_fit_image, method, site), partial(_lost_by_image, method, site)))
    if not site.vault.has("mask-codec"):
        _keep(site, "mask-codec", *sound(partial(_fit_mask, method, site), partial(_lost_by_mask, method, site)))
    lost = np.stack([site.vault.load(f"{name}-codec")["lost"] for name in ("image", "mask")])
    return Payload(STATUS, site.name, "train", {"lost": lost})


def lost_declared(method: PrivacySF, scope: Scope, order: Order) -> Expected:
    """What `fit_encoders` sends: of image and mask encoder, which structures were lost."""
    return Expected(STATUS, "train", {"lost": Array("uint8", (2, len(scope.task.structures)), 0, 1)})


def send_image_codes(method: PrivacySF, site: Site, order: Order) -> Payload:
    """One shard of the image codes of the training slices, view by view (section 2.4, step 2)."""
    from fedprivseg.nets.fitting import encode

    images, _, shards = _view(method, site, order.number)
    codes = encode(_image_encoder(method, site), images[:, None], site.device, method.parameters.half)
    return _codes(IMAGE_CODE, site, "train", codes, order.number, shards, _TRAIN_IMAGE)


def send_mask_codes(method: PrivacySF, site: Site, order: Order) -> Payload:
    """The mask codes of the same slices, in the same views, as shard `order.number` of the image codes."""
    import torch

    from fedprivseg.nets.fitting import encode
    from fedprivseg.nets.segmentation import as_picture

    _, masks, shards = _view(method, site, order.number)
    pictures = as_picture(torch.from_numpy(masks), len(site.task.structures)).numpy()
    codes = encode(_mask_codec(method, site).encoder, pictures, site.device, method.parameters.half)
    return _codes(MASK_CODE, site, "train", codes, order.number, shards, _TRAIN_MASK)


def send_test_codes(method: PrivacySF, site: Site, order: Order) -> Payload:
    """One shard of the image codes of the test slices, view by view. A site without test slices sends none."""
    from fedprivseg.nets.fitting import encode
    from fedprivseg.nets.test_time import view

    p, images = method.parameters, site.testing()
    index, places, _ = part_of(order.number, len(images), p.shard_slices)
    chosen = images[places]
    codes = np.zeros((0, *method.image_code(Scope(site.grid, site.task))), np.float16)
    if len(chosen):
        codes = encode(_image_encoder(method, site), view(chosen, index)[:, None], site.device, p.half)
    shards = shards_of(len(images), p.shard_slices, p.test_views)
    return _codes(IMAGE_CODE, site, "infer", codes, order.number, shards, _TEST_IMAGE)


_TRAIN_IMAGE, _TRAIN_MASK = ("view", "image encoder", "float16"), ("view", "mask encoder", "float16")
_MAPPING = "mapping"
"""The name under which the server keeps the segmentation network."""
_TEST_IMAGE = ("image encoder", "float16")


def train_image_codes(method: PrivacySF, scope: Scope, order: Order) -> Expected:
    """What `send_image_codes` sends."""
    return _stream(method, IMAGE_CODE, "train", method.image_code(scope), _TRAIN_IMAGE)


def train_mask_codes(method: PrivacySF, scope: Scope, order: Order) -> Expected:
    """What `send_mask_codes` sends."""
    return _stream(method, MASK_CODE, "train", method.mask_code(scope.grid), _TRAIN_MASK)


def infer_image_codes(method: PrivacySF, scope: Scope, order: Order) -> Expected:
    """What `send_test_codes` sends."""
    return _stream(method, IMAGE_CODE, "infer", method.image_code(scope), _TEST_IMAGE)


def _stream(
    method: PrivacySF,
    kind: KindSpec,
    purpose: Literal["train", "infer"],
    code: tuple[int, int, int],
    history: tuple[str, ...],
) -> Expected:
    p = method.parameters
    side: Literal["train", "test"] = "train" if purpose == "train" else "test"
    views = p.views if side == "train" else p.test_views
    form = Array("float16", (None, *code), -MOST_CODE, MOST_CODE)
    return Expected(kind, purpose, {"codes": form}, history, views=views, check=in_parts(side, views, p.shard_slices))


def decoded(method: PrivacySF, scope: Scope, order: Order) -> Expected:
    """What `decode` sends: how many codes it decoded, which is as many as the server sent."""
    p = method.parameters

    def check(payload: Payload, facts: Mapping[str, int]) -> str | None:
        said = int(payload.arrays["slices"][0])
        sent = min(p.shard_slices, p.test_views * facts["slices_test"] - payload.shard * p.shard_slices)
        return None if said == sent else f"it says that it decoded {said} codes of {sent}"

    form = Array("int64", (1,), 0, p.shard_slices)
    return Expected(STATUS, "infer", {"slices": form}, check=check)


def decode(method: PrivacySF, site: Site, order: Order) -> Payload:
    """Decode one answer of the server with the site's own mask decoder; the scores stay in the vault."""
    from fedprivseg.nets.fitting import scores

    assert order.answer is not None, "decode needs an answer"
    decoder = _mask_codec(method, site).decoder
    values = scores(decoder, order.answer.arrays["codes"].astype(np.float32), site.device, method.parameters.half)
    site.vault.save(f"scores-{order.number:05d}", {"scores": values.astype(np.float16)})
    count = np.array([len(values)], np.int64)
    return Payload(STATUS, site.name, "infer", {"slices": count}, shard=order.number, shards=order.number + 1)


def measure(method: PrivacySF, site: Site, order: Order) -> Payload:
    """Average the views and measure against the site's masks, at the site."""
    from fedprivseg.nets.test_time import together

    images = site.testing()
    if not len(images):
        return site.measure(np.zeros((0, site.task.classes, *images.shape[1:]), np.float32))
    parts: list[np.ndarray] = []
    while site.vault.has(f"scores-{len(parts):05d}"):
        parts.append(site.vault.load(f"scores-{len(parts):05d}")["scores"])
    return site.measure(together(np.concatenate(parts), method.parameters.test_views))


@final
class PrivacySF(CodedMethod):
    """Coded segmentation: encoders at the sites, a segmentation network on codes at the server."""

    name = "privacy-sf"
    title = "Coded segmentation"
    paper = "Chen et al. 2024, doi 10.12114/j.issn.1007-9572.2023.0897"
    exports = frozenset({IMAGE_CODE, MASK_CODE, METRIC, STATUS})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "improved": {
            "encoder": "task",
            "image_depth": 2,
            "image_folds": 2,
            "image_channels": 8,
            "image_reconstruction": 0.5,
            "image_steps": 300,
            "mask_depth": 2,
            "mask_folds": 1,
            "mask_channels": 4,
            "mask_steps": 200,
            "mask_noise": 1.5,
            "augmentation": True,
            "views": 16,
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
    parameters_type = PrivacySFParameters
    parameters: PrivacySFParameters
    actions: ClassVar[Mapping[str, Action]] = {
        action.__name__: action
        for action in (fit_encoders, send_image_codes, send_mask_codes, send_test_codes, decode, measure)
    }
    declares: ClassVar[Mapping[str, Declaration]] = {
        "fit_encoders": lost_declared,
        "send_image_codes": train_image_codes,
        "send_mask_codes": train_mask_codes,
        "send_test_codes": infer_image_codes,
        "decode": decoded,
        "measure": measured_declared,
    }

    sends = (
        Sent("send_test_codes", "images", "test"),
        Sent("send_image_codes", "images", "train"),
        Sent("send_mask_codes", "masks", "train"),
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
        return Effort(site, training_s(MAPPING_S, p.mapping_steps, p.batch, grid))

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Sections 2.4 and 2.5: fit encoders at the sites, send codes, train the mapping, infer, decode, measure."""
        p = self.parameters
        with federation.stage("fit encoders"):
            for site, payload in self.ask(federation, "fit_encoders").items():
                _note_lost(federation, site, payload.arrays["lost"])
        with federation.stage("send codes"):
            images = self.collect(federation, "send_image_codes")
            masks = self.collect(federation, "send_mask_codes")
        with federation.stage("train mapping"):
            mapping = self._mapping(federation, images, masks)
        with federation.stage("infer"):
            codes = self.collect(federation, "send_test_codes")
            longest = max((len(codes[site]) for site in federation.sites), default=0)
            for number, start in enumerate(range(0, longest, p.shard_slices)):
                answers = {}
                for site in federation.sites:
                    rows = np.arange(start, min(start + p.shard_slices, len(codes[site])))
                    if len(rows):
                        arrays = {"codes": _answer(mapping, site, codes[site].rows(rows), federation.device, p.half)}
                        answers[site] = federation.answer(MASK_CODE, site, arrays, number)
                self.ask(federation, "decode", number=number, answers=answers, sites=list(answers))
        with federation.stage("measure"):
            return self.ask(federation, "measure")

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, C, H, W) for slices (N, H, W) float32 in 0..1: encode, map, decode, average the views."""
        from fedprivseg.nets.fitting import encode, scores
        from fedprivseg.nets.test_time import together, view

        p = self.parameters
        kept = models.load(_MAPPING)
        if kept is None:
            raise FolderError("the server has no segmentation network; run the scenario again into this folder")
        mapping = self._restored(*kept, site.task)
        encoder, decoder = _image_encoder(self, site), _mask_codec(self, site).decoder
        parts = []
        for index in range(p.test_views):
            codes = site.guarded(IMAGE_CODE, encode(encoder, view(images, index)[:, None], site.device, p.half))
            answer = site.opened(MASK_CODE, _answer(mapping, site.name, codes, site.device, p.half))
            parts.append(scores(decoder, answer.astype(np.float32), site.device, p.half))
        return together(np.concatenate(parts), p.test_views)

    def encode_pictures(self, site: Site, what: What, pictures: np.ndarray) -> np.ndarray:
        """See `CodedMethod`."""
        from fedprivseg.nets.fitting import encode

        encoder = _image_encoder(self, site) if what == "images" else _mask_codec(self, site).encoder
        return encode(encoder, pictures, site.device, self.parameters.half)

    def decode_pictures(self, site: Site, what: What, codes: np.ndarray) -> np.ndarray | None:
        """See `CodedMethod`. A task encoder without a share of the image has no image decoder."""
        from fedprivseg.nets.codec import Decoder
        from fedprivseg.nets.fitting import pictures_of, scores

        p = self.parameters
        if what == "masks":
            return scores(_mask_codec(self, site).decoder, codes.astype(np.float32), site.device, p.half)[:, 1:]
        name = "decoder." if p.encoder == "reconstruction" else "redraw."
        weights = _weights(site, "image-codec", name)
        if not weights:
            return None
        with building(0, "weights follow"):
            decoder = Decoder(1, p.image_depth, p.image_channels, p.image_folds)
        decoder.load_state_dict(weights)
        return pictures_of(decoder.eval(), codes.astype(np.float32), site.device, p.half)

    def views(self, sent: Sent) -> int:
        """See `CodedMethod`. Views of test slices are fixed; those of training slices are drawn at the site."""
        return self.parameters.test_views if sent.side == "test" else 1

    def overlaid(self, pictures: np.ndarray, count: int) -> np.ndarray:
        """See `CodedMethod`."""
        from fedprivseg.nets.test_time import overlaid

        return overlaid(pictures, count)

    def architecture(self, what: What, task: SegmentationTask) -> torch.nn.Module:
        """See `CodedMethod`."""
        from fedprivseg.nets.codec import Encoder

        p = self.parameters
        if what == "masks":
            return Encoder(len(task.structures), p.mask_depth, p.mask_channels, p.mask_folds)
        return _untrained(p, task)

    def image_code(self, scope: Scope) -> tuple[int, int, int]:
        """(C, h, w) of an image code."""
        from fedprivseg.nets.codec import code_shape

        p = self.parameters
        channels = len(scope.task.structures) if p.encoder == "answer" else p.image_channels
        return code_shape(scope.grid.height, scope.grid.width, p.image_depth, channels)

    def mask_code(self, grid: Grid) -> tuple[int, int, int]:
        """(C, h, w) of a mask code."""
        from fedprivseg.nets.codec import code_shape

        return code_shape(grid.height, grid.width, self.parameters.mask_depth, self.parameters.mask_channels)

    def fitting(self, site: Site, stage: str, steps: int, rate: float, attempt: int) -> Fitting:
        """How this site trains one of its networks; randomness from the run's seed, the site, the stage and the attempt."""
        from fedprivseg.nets.augment import Augmentation
        from fedprivseg.nets.descent import Schedule
        from fedprivseg.nets.fitting import Fitting

        p = self.parameters
        again = (attempt,) if attempt else ()
        return Fitting(
            schedule=Schedule(steps, p.batch, rate, half=p.half),
            augmentation=Augmentation() if p.augmentation else None,
            seed=site.seed,
            names=(site.name, stage, *again),
            structures=len(site.task.structures),
            device=site.device,
            progress=lambda _, done, total: site.progress(f"fit {stage}" + ", again" * attempt, done, total),
        )

    def _mapping(self, federation: Federation, images: Mapping[str, Codes], masks: Mapping[str, Codes]) -> SiteMapping:
        """The segmentation network, trained or found again as an earlier attempt left it."""

        from fedprivseg.nets.descent import Schedule
        from fedprivseg.nets.fitting_mapping import fit_mapping

        p = self.parameters
        if (kept := federation.load_model(_MAPPING)) is not None:
            found = self._restored(*kept, federation.task)
            if found.sites == federation.sites:
                return found
        mapping = self._build(federation.sites, federation.seed, federation.task)
        schedule = Schedule(
            p.mapping_steps, p.batch, p.mapping_rate, p.mapping_decay, averaging=p.mapping_averaging, half=p.half
        )
        fit_mapping(
            mapping,
            images,
            masks,
            schedule,
            federation.seed,
            ("server", "mapping"),
            standardise=p.standardise,
            device=federation.device,
            progress=lambda _, done, total: federation.progress("train mapping", done, total),
        )
        state = {name: value.cpu().numpy() for name, value in mapping.state_dict().items()}
        federation.save_model(_MAPPING, state, {"sites": " ".join(mapping.sites)})
        return mapping

    def _restored(
        self, state: Mapping[str, np.ndarray], facts: Mapping[str, str], task: SegmentationTask
    ) -> SiteMapping:
        import torch

        mapping = self._build(tuple(facts["sites"].split()), 0, task)
        mapping.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        return mapping.eval()

    def _build(self, sites: tuple[str, ...], seed: int, task: SegmentationTask) -> SiteMapping:
        from fedprivseg.nets.fitting_mapping import build_mapping

        p = self.parameters
        least = Grid(16, 16, 1.0)
        image_channels, mask_channels = self.image_code(Scope(least, task))[0], self.mask_code(least)[0]
        with building(seed, "server", "mapping"):
            return build_mapping(
                sites,
                image_channels,
                mask_channels,
                trunk=p.trunk,
                width=p.trunk_width,
                levels=p.trunk_levels,
                own=p.own_ends,
            )


def _fit_image(method: PrivacySF, site: Site, attempt: int) -> TaskEncoder | AnswerEncoder | Codec:
    from fedprivseg.nets.fitting import fit_answer_encoder, fit_image_codec, fit_task_encoder

    p, slices = method.parameters, site.training()
    fitting = method.fitting(site, "image encoder", p.image_steps, p.image_rate, attempt)
    if p.encoder == "task":
        return fit_task_encoder(
            slices.images,
            slices.masks,
            fitting,
            depth=p.image_depth,
            channels=method.image_code(Scope(site.grid, site.task))[0],
            folds=p.image_folds,
            levels=_levels(slices.images.shape[1] >> p.image_depth, slices.images.shape[2] >> p.image_depth),
            reconstruction=p.image_reconstruction,
            noise=p.image_noise,
            opposition=p.opposition,
            attributes=site.attributes() if p.opposition else {},
        )
    if p.encoder == "answer":
        return fit_answer_encoder(slices.images, slices.masks, fitting, depth=p.image_depth)
    return fit_image_codec(slices.images, fitting, depth=p.image_depth, channels=p.image_channels)


def _lost_by_image(method: PrivacySF, site: Site, net: TaskEncoder | AnswerEncoder | Codec) -> tuple[str, ...]:
    from fedprivseg.nets.codec import Codec
    from fedprivseg.nets.fitting import TaskEncoder
    from fedprivseg.nets.segmentation import lost_structures

    if isinstance(net, Codec):
        return ()  # it was not trained to segment
    segment = net if isinstance(net, TaskEncoder) else net.encoder
    slices = site.training()
    return lost_structures(
        lambda images: _labels(segment, images[:, None], site, method.parameters),
        slices.images,
        slices.masks,
        site.task.names,
    )


def _fit_mask(method: PrivacySF, site: Site, attempt: int) -> Codec:
    from fedprivseg.nets.fitting import fit_mask_codec

    p = method.parameters
    fitting = method.fitting(site, "mask encoder", p.mask_steps, p.mask_rate, attempt)
    return fit_mask_codec(
        site.training().masks,
        fitting,
        depth=p.mask_depth,
        channels=p.mask_channels,
        folds=p.mask_folds,
        noise=p.mask_noise,
    )


def _lost_by_mask(method: PrivacySF, site: Site, codec: Codec) -> tuple[str, ...]:
    import torch

    from fedprivseg.nets.segmentation import as_picture, lost_structures

    slices = site.training()
    pictures = as_picture(torch.from_numpy(slices.masks), len(site.task.structures)).numpy()
    return lost_structures(
        lambda _: _labels(codec, pictures, site, method.parameters), slices.images, slices.masks, site.task.names
    )


def _view(method: PrivacySF, site: Site, number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Images, masks of shard `number`, and how many shards there are. View 0 is the slices as they are; each further one
    is drawn from (seed, site, view, part), so that image codes and mask codes of a shard show the same pictures."""
    import torch

    from fedprivseg.nets.augment import Augmentation, augment

    p, slices = method.parameters, site.training()
    copy, places, parts = part_of(number, len(slices.images), p.shard_slices)
    images, masks = slices.images[places], slices.masks[places]
    if copy:
        draws = torch_generator(site.seed, site.name, "view", copy, number % parts)
        warped, labels = augment(torch.from_numpy(images)[:, None], torch.from_numpy(masks), Augmentation(), draws)
        images, masks = warped[:, 0].numpy(), labels.numpy()
    return images, masks, shards_of(len(slices.images), p.shard_slices, p.views)


def _codes(
    kind: KindSpec, site: Site, purpose: str, codes: np.ndarray, number: int, shards: int, history: tuple[str, ...]
) -> Payload:
    return Payload(kind, site.name, purpose, {"codes": codes}, shard=number, shards=shards, history=history)


def _levels(height: int, width: int) -> int:
    """How often a code's grid can be halved, three times at most: the depth of the U-Net behind a task encoder."""
    return next(levels for levels in (3, 2, 1, 0) if height % 2**levels == width % 2**levels == 0)


def _keep(site: Site, name: str, net: torch.nn.Module, lost: tuple[str, ...]) -> None:
    weights = {key: value.cpu().numpy() for key, value in net.state_dict().items()}
    flags = np.array([structure in lost for structure in site.task.names], np.uint8)
    site.vault.save(name, {**weights, "lost": flags})


def _weights(site: Site, name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    import torch

    kept = site.vault.load(name)
    return {
        key.removeprefix(prefix): torch.from_numpy(kept[key])
        for key in kept
        if key.startswith(prefix) and key != "lost"
    }


def _untrained(p: PrivacySFParameters, task: SegmentationTask) -> Encoder | AnswerEncoder:
    from fedprivseg.nets.codec import Encoder
    from fedprivseg.nets.fitting import AnswerEncoder
    from fedprivseg.nets.unet import UNet

    if p.encoder == "answer":
        return AnswerEncoder(UNet(1, len(task.structures)), p.image_depth)
    return Encoder(1, p.image_depth, p.image_channels, p.image_folds)


def _image_encoder(method: PrivacySF, site: Site) -> torch.nn.Module:
    import torch

    from fedprivseg.nets.fitting import AnswerEncoder

    with building(0, "weights follow"):
        net = _untrained(method.parameters, site.task)
    # What was trained besides, a decoder or a head, is kept under other names; the answer of an `AnswerEncoder` is all of it.
    whole = net.encoder if isinstance(net, AnswerEncoder) else net
    whole.load_state_dict(_weights(site, "image-codec", "encoder."))
    return net.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _mask_codec(method: PrivacySF, site: Site) -> Codec:
    import torch

    from fedprivseg.nets.codec import Codec

    p, structures = method.parameters, len(site.task.structures)
    with building(0, "weights follow"):
        codec = Codec(structures, structures, p.mask_depth, p.mask_channels, p.mask_folds)
    codec.load_state_dict(_weights(site, "mask-codec"))
    return codec.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _labels(net: torch.nn.Module, pictures: np.ndarray, site: Site, p: PrivacySFParameters) -> np.ndarray:
    from fedprivseg.nets.fitting import scores

    return scores(net, pictures, site.device, p.half).argmax(axis=1).astype(np.uint8)


def _answer(mapping: SiteMapping, site: str, codes: np.ndarray, device: str, half: Half) -> np.ndarray:
    """Predicted mask codes (n, C, h, w) float16 of image codes (n, c, h, w)."""
    import torch

    from fedprivseg.nets.descent import arithmetic

    mapping = mapping.to(device).eval()
    with torch.no_grad(), arithmetic(torch.device(device), half):
        answer: torch.Tensor = mapping(site, torch.from_numpy(codes.astype(np.float32)).to(device))
    return answer.half().cpu().contiguous().numpy()


def _note_lost(federation: Federation, site: str, lost: np.ndarray) -> None:
    from fedprivseg.nets.fitting import ATTEMPTS

    for row, net in enumerate(("image", "mask")):
        names = [name for name, gone in zip(federation.task.names, lost[row], strict=True) if gone]
        if names:
            federation.note(
                site,
                f"the {net} encoding network lost {', '.join(names)} in each of {ATTEMPTS} trainings (Dice below 0.05)",
            )
