"""provisional"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from fedprivseg.methods.method import Action, Array, Codes, Expected, Federation, Method, Parameters, Site
from fedprivseg.nets.codec import Codec, code_shape
from fedprivseg.nets.mapping import OverComplete
from fedprivseg.records import Kind, Order, Payload
from fedprivseg.seeds import building, numpy_generator

SHARD = 64


class PrivacySFParameters(Parameters):
    epochs: int = 10
    mapping_epochs: int = 10


def fit_encoders(method: "PrivacySF", site: Site, order: Order) -> Payload:
    slices = site.training()
    if not site.vault.has("image-codec"):
        for name, outputs in (("image", 4), ("mask", 4)):
            with building(site.seed, site.name, name):
                net = Codec(1 if name == "image" else 4, outputs)
            x = torch.from_numpy(slices.images)[:, None]
            y = torch.from_numpy(slices.masks).long()
            if name == "mask":
                x = functional.one_hot(y, 4).permute(0, 3, 1, 2).float()
            opt = torch.optim.AdamW(net.parameters(), 2e-3)
            rng = numpy_generator(site.seed, site.name, name, "order")
            net.train()
            net = net.to(memory_format=torch.channels_last)
            for epoch in range(method.parameters.epochs):
                site.progress(f"fit {name} encoder", epoch, method.parameters.epochs)
                perm = rng.permutation(len(x))
                for i in range(0, len(x) - 1, 16):
                    b = torch.from_numpy(perm[i : i + 16])
                    loss = functional.cross_entropy(net(x[b]), y[b])
                    opt.zero_grad()
                    loss.backward()
                    opt.step()
            site.vault.save(f"{name}-codec", {k: v.numpy() for k, v in net.state_dict().items()})
    return Payload(Kind.STATUS, site.name, "train", {"collapsed": np.zeros(3, np.uint8)})


def _codec(site: Site, name: str) -> Codec:
    with building(0, "empty"):
        net = Codec(1 if name == "image" else 4, 4)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in site.vault.load(f"{name}-codec").items()})
    return net.eval()


def _send(method: "PrivacySF", site: Site, order: Order, name: str, stack: Any, kind: Kind, purpose: str) -> Payload:
    shards = max(1, -(-len(stack) // SHARD))
    part = stack[order.number * SHARD : (order.number + 1) * SHARD]
    with torch.no_grad():
        codes = _codec(site, name).encoder(part).half().numpy() if len(part) else np.zeros((0, *code_shape(site.grid.height, site.grid.width)), np.float16)
    return Payload(kind, site.name, purpose, {"codes": codes}, shard=order.number, shards=shards, history=("encode", "float16"))


def send_image_codes(method: "PrivacySF", site: Site, order: Order) -> Payload:
    return _send(method, site, order, "image", torch.from_numpy(site.training().images)[:, None], Kind.IMAGE_CODE, "train")


def send_mask_codes(method: "PrivacySF", site: Site, order: Order) -> Payload:
    y = functional.one_hot(torch.from_numpy(site.training().masks).long(), 4).permute(0, 3, 1, 2).float()
    return _send(method, site, order, "mask", y, Kind.MASK_CODE, "train")


def send_test_codes(method: "PrivacySF", site: Site, order: Order) -> Payload:
    return _send(method, site, order, "image", torch.from_numpy(site.testing())[:, None], Kind.IMAGE_CODE, "infer")


def decode(method: "PrivacySF", site: Site, order: Order) -> Payload:
    with torch.no_grad():
        scores = _codec(site, "mask").decoder(torch.from_numpy(order.answer.arrays["codes"].astype(np.float32))).softmax(1)
    site.vault.save(f"scores-{order.number:05d}", {"scores": scores.half().numpy()})
    return Payload(Kind.STATUS, site.name, "infer", {"slices": np.array([len(scores)])}, shard=order.number, shards=order.number + 1)


def measure(method: "PrivacySF", site: Site, order: Order) -> Payload:
    parts = []
    while site.vault.has(f"scores-{len(parts):05d}"):
        parts.append(site.vault.load(f"scores-{len(parts):05d}")["scores"])
    n = len(site.testing())
    scores = np.concatenate(parts) if parts else np.zeros((0, 4, site.grid.height, site.grid.width), np.float16)
    example = None
    if n:
        with torch.no_grad():
            t = torch.from_numpy(site.testing())[:, None]
            example = _codec(site, "image").encoder(t[:1])[0].numpy()
    return site.measure(scores, example)


class PrivacySF(Method):
    name = "privacy-sf"
    title = "Coded segmentation"
    paper = "Chen et al. 2024, doi 10.12114/j.issn.1007-9572.2023.0897"
    exports = frozenset({Kind.IMAGE_CODE, Kind.MASK_CODE, Kind.STATUS, Kind.METRIC})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"improved": {}, "paper": {}}
    parameters_type = PrivacySFParameters
    actions: ClassVar[Mapping[str, Action]] = {
        f.__name__: f for f in (fit_encoders, send_image_codes, send_mask_codes, send_test_codes, decode, measure)
    }

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        shape = (None, *code_shape(federation.grid.height, federation.grid.width))
        with federation.stage("fit encoders"):
            federation.ask("fit_encoders", Expected(Kind.STATUS, "train", {"collapsed": Array("uint8", (3,))}))
        with federation.stage("send codes"):
            images = federation.collect("send_image_codes", Expected(Kind.IMAGE_CODE, "train", {"codes": Array("float16", shape)}))
            masks = federation.collect("send_mask_codes", Expected(Kind.MASK_CODE, "train", {"codes": Array("float16", shape)}))
        path = federation.folder / "mapping.safetensors"
        with building(federation.seed, "mapping"):
            net = OverComplete(128, 128)
        with federation.stage("train mapping"):
            if not path.exists():
                opt = torch.optim.AdamW(net.parameters(), 2e-3)
                for epoch in range(self.parameters.mapping_epochs):
                    federation.progress("train mapping", epoch, self.parameters.mapping_epochs)
                    for site in federation.sites:
                        rng = numpy_generator(federation.seed, "mapping", site, epoch)
                        perm = rng.permutation(len(images[site]))
                        for i in range(0, len(perm) - 1, 16):
                            b = perm[i : i + 16]
                            x = torch.from_numpy(images[site].rows(b).astype(np.float32))
                            y = torch.from_numpy(masks[site].rows(b).astype(np.float32))
                            loss = functional.mse_loss(net(x), y)
                            opt.zero_grad()
                            loss.backward()
                            opt.step()
                save_file(net.state_dict(), path)
            net.load_state_dict(load_file(path))
        net.eval()
        with federation.stage("infer"):
            tests = federation.collect("send_test_codes", Expected(Kind.IMAGE_CODE, "infer", {"codes": Array("float16", shape)}))
            for site in federation.sites:
                for number, start in enumerate(range(0, len(tests[site]), SHARD)):
                    rows = tests[site].rows(np.arange(start, min(start + SHARD, len(tests[site]))))
                    with torch.no_grad():
                        codes = net(torch.from_numpy(rows.astype(np.float32))).half().numpy()
                    answer = federation.answer(Kind.MASK_CODE, site, {"codes": codes}, number)
                    federation.ask("decode", Expected(Kind.STATUS, "infer", {"slices": Array("int64", (1,))}), number=number, answers={site: answer}, sites=[site])
        with federation.stage("measure"):
            known = {f"{m}": Array("float64", (None, 2, 3)) for m in ("dice", "hd95_mm", "assd_mm")}
            known |= {f"{m}_known": Array("uint8", (None, 2, 3)) for m in ("dice", "hd95_mm", "assd_mm")}
            return federation.ask("measure", Expected(Kind.METRIC, "measure", known))

    def predict(self, site: Site, server_folder: Path, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError
