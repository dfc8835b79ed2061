"""How a party uses the machine: half precision where the hardware has it, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from fedprivseg.core.compute import arithmetic_name, half_precision
from fedprivseg.nets.descent import arithmetic


@pytest.fixture
def machine(monkeypatch):
    """``machine(avx512_bf16, amx, allowed)``: a CPU with or without these instructions, and whether oneDNN may use them."""

    def build(avx512_bf16: bool, amx: bool, allowed: bool = True) -> None:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: allowed)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return build


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "allowed", "name"),
    [
        (False, False, True, "float32"),
        (True, False, True, "bfloat16"),
        (False, True, True, "bfloat16"),
        (True, True, False, "float32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_if_it_has_instructions_for_it(
    machine, avx512_bf16, amx, allowed, name
) -> None:
    machine(avx512_bf16, amx, allowed)
    assert arithmetic_name("cpu") == arithmetic_name("cpu", "auto") == name
    with arithmetic(torch.device("cpu"), "auto"):
        product = torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2))
    assert product.dtype == getattr(torch, name)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("instructions", [True, False])
def test_a_scenario_that_says_so_has_its_way(machine, wanted, instructions) -> None:
    machine(instructions, instructions)
    assert half_precision("cpu", wanted) is wanted


def test_a_gpu_is_asked_for_bfloat16_of_its_own_and_not_for_an_emulation(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or True)
    assert half_precision("cuda:0")
    assert asked == [{"including_emulation": False}]
