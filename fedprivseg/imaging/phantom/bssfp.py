"""The scanner of the phantom: balanced steady-state free precession (bSSFP), the receive coils and the noise.

Cine MRI is acquired with bSSFP. Its contrast follows from T1, T2 and the sequence settings, so the phantom states those
and computes the grey values. Not modelled: inflow of fresh blood, field inhomogeneity (banding), eddy currents.

Times are in ms, flip angles in degrees, frequencies in Hz, fields in tesla, lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

FAT_SHIFT_HZ_PER_TESLA = -146.0
"""Main fat peak against water: -3.43 ppm x 42.58 MHz/T."""


@dataclass(frozen=True)
class Tissue:
    """Relaxation times at 1.5 T and 3 T and the proton density relative to water."""

    t1: tuple[float, float]
    t2: tuple[float, float]
    density: float
    fat: bool = False


# [S] Stanisz et al., Magn Reson Med 54:507-512, 2005.  [B] de Bazelaire et al., Radiology 230:652-659, 2004.
# Densities are rounded water contents, chosen here. Lung is mostly air; fluid stands for cerebrospinal fluid at 37 C.
TISSUES = {
    "blood": Tissue((1441.0, 1932.0), (290.0, 275.0), 0.95),  # [S]
    "myocardium": Tissue((1030.0, 1471.0), (40.0, 47.0), 0.90),  # [S] heart
    "muscle": Tissue((1008.0, 1412.0), (44.0, 50.0), 0.85),  # [S] skeletal muscle
    "liver": Tissue((576.0, 812.0), (46.0, 42.0), 0.80),  # [S]
    "spleen": Tissue((1057.0, 1328.0), (79.0, 61.0), 0.85),  # [B]
    "marrow": Tissue((549.0, 586.0), (49.0, 49.0), 0.60),  # [B] vertebra L4
    "fat": Tissue((343.0, 382.0), (58.0, 68.0), 0.90, fat=True),  # [B] subcutaneous
    "fluid": Tissue((4000.0, 4000.0), (1500.0, 1500.0), 0.60),
    "lung": Tissue((1008.0, 1412.0), (44.0, 50.0), 0.18),
    "bone": Tissue((1008.0, 1412.0), (44.0, 50.0), 0.10),  # cortex: almost no mobile water
}


@dataclass(frozen=True)
class Sequence:
    """One centre's cine protocol.

    field: 1.5 or 3.0 T. tr, te: ms. flip: degrees. snr: blood signal over noise deviation at the heart. flatness: share
    of the coil's intensity fall-off (on a log scale) which the scanner's own correction removes, 0 to 1. detail: share
    of k-space acquired, the rest is zero-filled, 0 to 1. gain: stored value of blood at the heart.
    """

    field: float
    tr: float
    te: float
    flip: float
    snr: float
    flatness: float
    detail: float
    gain: float


def steady_state(t1: float, t2: float, tr: float, te: float, flip: float, offset: float = 0.0) -> complex:
    """Transverse bSSFP magnetisation at the echo, relative to equilibrium; real and positive on resonance.

    The radio-frequency phase alternates by 180 degrees, so `offset` = 0 Hz is the middle of a pass band. Freeman and
    Hill, J Magn Reson 4:366-383, 1971, in the form of Scheffler and Lehnhardt, Eur Radiol 13:2409-2418, 2003; with
    `offset` = 0 it is sin(a) (1 - E1) / (1 - (E1 - E2) cos(a) - E1 E2) exp(-TE/T2).
    """
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    angle = np.deg2rad(flip)
    sine, cosine = np.sin(angle), np.cos(angle)
    turn = np.pi + 2e-3 * np.pi * offset * tr  # precession per TR, with the alternation of the pulses
    after_pulse = (
        (1 - e1)
        * sine
        * (1 - e2 * np.exp(-1j * turn))
        / ((1 - e1 * cosine) * (1 - e2 * np.cos(turn)) - e2 * (e1 - cosine) * (e2 - np.cos(turn)))
    )
    return complex(after_pulse * np.exp(-te / t2 + 2e-3j * np.pi * offset * te))


def tissue_signals(sequence: Sequence) -> dict[str, float]:
    """Signed signal of every tissue, with blood at 1.

    Fat lies one pass band away from water, so at TE = TR/2 its signal is opposed (Hargreaves et al., Magn Reson Med
    50:210-213, 2003): voxels that hold both cancel, which draws the dark line seen between fat and organs.
    """
    at = {1.5: 0, 3.0: 1}[sequence.field]
    signals = {}
    for name, tissue in TISSUES.items():
        offset = FAT_SHIFT_HZ_PER_TESLA * sequence.field if tissue.fat else 0.0
        echo = steady_state(tissue.t1[at], tissue.t2[at], sequence.tr, sequence.te, sequence.flip, offset)
        signals[name] = tissue.density * float(np.copysign(abs(echo), echo.real))
    return {name: signal / signals["blood"] for name, signal in signals.items()}


def coil_field(across: np.ndarray, down: np.ndarray, coils: np.ndarray, radius: float, flatness: float) -> np.ndarray:
    """Combined receive sensitivity at the points (`across`, `down`) in mm, 1 at the origin, where the heart is.

    coils: (N, 2) centres of loops in mm. Each loop is taken at its on-axis law (1 + (d/r)^2)^(-3/2), Biot-Savart; loops
    are combined by root sum of squares. Returns float32 of the points' shape.
    """

    def sensitivity(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        squares = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
        for x, y in coils:
            squares += (1 + ((u - x) ** 2 + (v - y) ** 2) / radius**2) ** -3.0
        return np.sqrt(squares)

    origin = sensitivity(np.zeros(1, np.float32), np.zeros(1, np.float32))
    return ((sensitivity(across, down) / origin) ** (1 - flatness)).astype(np.float32)


def acquire(signal: np.ndarray, sequence: Sequence, draw: np.random.Generator) -> np.ndarray:
    """The stored image of a signed `signal` (..., X, Y), float32, in which blood at the heart is 1; int16, 0 or more.

    Complex Gaussian noise, a k-space of which only the middle was acquired (Gibbs ringing, correlated noise), then the
    magnitude, so that the noise is Rician (Gudbjartsson and Patz, Magn Reson Med 34:910-914, 1995).
    """
    window = np.ones(signal.shape[-2:], np.float32)
    for axis in range(2):
        frequency = np.abs(fft.fftfreq(window.shape[axis])) * 2 / sequence.detail
        edge = np.clip((1 - frequency) / 0.2, 0, 1)  # raised-cosine taper over the outer fifth
        window *= np.expand_dims(0.5 - 0.5 * np.cos(np.pi * edge), 1 - axis).astype(np.float32)
    deviation = 1 / (sequence.snr * np.sqrt(np.mean(window**2)))  # the filter removes noise; ask for what is left
    stored = np.empty(signal.shape, np.int16)
    for index in np.ndindex(signal.shape[:-2]):  # one picture at a time stays in the processor's cache
        channels = draw.standard_normal((2, *window.shape), dtype=np.float32) * np.float32(deviation)
        measured = np.empty(window.shape, np.complex64)
        measured.real = signal[index] + channels[0]
        measured.imag = channels[1]
        image = fft.ifft2(fft.fft2(measured, overwrite_x=True) * window, overwrite_x=True)
        magnitude = np.sqrt(image.real**2 + image.imag**2) * np.float32(sequence.gain)
        stored[index] = np.rint(np.minimum(magnitude, np.iinfo(np.int16).max))
    return stored
