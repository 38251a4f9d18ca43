"""Weights in int8 that give a layer's outputs back on real inputs, not the nearest ones.

The error of a linear layer is quadratic in its weights, with the covariance of its inputs as the
Hessian, so no gradient descent is needed: weights are rounded one input after another, and those
still to be rounded take up the error (GPTQ: Frantar et al. 2022, arXiv:2210.17323); sweeps of
coordinate descent improve on that. What is fitted are the outputs of the float layer, but from the
inputs that the int8 layer will see: so it makes up for errors of the layers before, and the bias,
which is hardly rounded, for all that is left of their means (bias correction: Nagel et al. 2019,
arXiv:1906.04721, section 4.2).

All arrays have groups as their first axis: a depthwise layer is one group a channel, with one
output and nine inputs; other layers are one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucid.network.integer import MAX_WEIGHT

Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]

_SWEEPS = 2

# Of the Hessian, as a share of the mean variance of the inputs (1% in GPTQ): it keeps weights
# whose inputs say nothing near those of the float layer.
_DAMPING = 0.01

# The same of the fit before weights are rounded, and much larger. Least squares from noisy inputs
# makes weights smaller than they should be (regression dilution), a little in each layer, and all
# layers together did worse the less it was held back: 2 to 4 dB in the logits from 0.01 to 10.
_RIDGE = 10.0

# How many steps the largest weight of a channel may be. Above 127 it is clamped, and the others
# have finer steps. Fewer steps than 127 come out best for weights that were whole numbers before,
# of an imported int8 file for example: those are found again.
_STEPS_OF_LARGEST = (*range(127, 3, -1), *range(130, 255, 5))


@dataclass(frozen=True)
class Samples:
    """What a layer sees and should give, at some places of some images.

    Args:
        inputs: float32 (groups, samples, inputs), as the int8 layer sees them, times their scale.
        targets: float32 (groups, samples, outputs), of the float layer, before its activation.
        low: what its outputs are clamped to.
        high: likewise.
    """

    inputs: Array32
    targets: Array32
    low: float
    high: float


@dataclass(frozen=True)
class Rounded:
    """Weights in steps (groups, outputs, inputs), their scales and biases (groups, outputs)."""

    steps: NDArray[np.int8]
    scale: Array32
    bias: Array64


def round_to_fit(weight: Array32, smallest_scale: Array64, samples: Samples) -> Rounded:
    """Choose steps, scales and biases with which the samples' targets come out best.

    Args:
        weight: float32 (groups, outputs, inputs), of the float layer.
        smallest_scale: (groups, outputs), above 0.
    """
    fit = _Fit(weight.astype(np.float64), smallest_scale, samples)
    fit.round_in_turn()
    for _ in range(_SWEEPS):
        fit.aim_at(fit.reachable_targets())
        fit.sweep()
        fit.rescale()
    fit.sweep()
    return fit.result()


class _Fit:
    """Weights on their way to steps: the least squares ``goal``, and where they are now."""

    def __init__(self, weight: Array64, smallest_scale: Array64, samples: Samples) -> None:
        self._weight, self._samples, self._smallest = weight, samples, smallest_scale
        self._mean = samples.inputs.mean(axis=1, dtype=np.float64)  # (G, I)
        # The bias takes up the means, so only what is left of the inputs counts.
        self._inputs = samples.inputs - self._mean[:, np.newaxis].astype(np.float32)
        hessian = _products(self._inputs, self._inputs)
        variance = np.einsum("gii->gi", hessian).mean(axis=1)
        # A share alone would be 0 for inputs that never change.
        variance = np.maximum(variance, 1e-12)[:, np.newaxis, np.newaxis]
        identity = np.eye(hessian.shape[1])
        self._ridge = _RIDGE * variance
        self._ridged = np.linalg.inv(hessian + self._ridge * identity)
        self._hessian = hessian + _DAMPING * variance * identity
        self.aim_at(samples.targets)
        self._scale = self._best_scale()
        self._steps = np.zeros_like(weight)

    def aim_at(self, targets: Array32) -> None:
        """The weights and means that come nearest to the targets, if they were not rounded."""
        self._target_mean = targets.mean(axis=1, dtype=np.float64)  # (G, O)
        cross = _products(
            targets - self._target_mean[:, np.newaxis].astype(np.float32), self._inputs
        )
        cross += self._ridge * self._weight
        self._goal = np.matmul(cross, self._ridged)  # (G, O, I)

    def reachable_targets(self) -> Array32:
        """The targets, but what is clamped like its target may stay what it is.

        The distance to these bounds the error after the activation from above and touches it at
        the present weights, so whatever brings it down brings the error down.
        """
        samples = self._samples
        weight = (self._steps * self._scale[:, :, np.newaxis]).astype(np.float32)
        found = np.matmul(self._inputs, weight.swapaxes(1, 2))  # (G, P, O)
        found += self._target_mean[:, np.newaxis].astype(np.float32)
        targets = np.clip(samples.targets, samples.low, samples.high)
        np.minimum(found, targets, out=targets, where=targets <= samples.low)
        np.maximum(found, targets, out=targets, where=targets >= samples.high)
        return targets

    def round_in_turn(self) -> None:
        """GPTQ; the inputs that vary most come first, as in its authors' code (act-order)."""
        order = np.argsort(-np.einsum("gii->gi", self._hessian), axis=1, kind="stable")  # (G, I)
        inverse = np.linalg.inv(self._hessian)
        inverse = np.take_along_axis(inverse, order[:, :, np.newaxis], axis=1)
        inverse = np.take_along_axis(inverse, order[:, np.newaxis], axis=2)
        upper = np.linalg.cholesky(inverse).swapaxes(1, 2)  # (G, I, I)
        wanted = np.take_along_axis(self._goal, order[:, np.newaxis], axis=2)
        for index in range(wanted.shape[2]):
            column = wanted[:, :, index]
            rounded = _to_steps(column / self._scale)
            error = (column - rounded * self._scale) / upper[:, index, index, np.newaxis]
            wanted[:, :, index + 1 :] -= (
                error[:, :, np.newaxis] * upper[:, np.newaxis, index, index + 1 :]
            )
            wanted[:, :, index] = rounded
        np.put_along_axis(self._steps, order[:, np.newaxis], wanted, axis=2)

    def sweep(self) -> None:
        """Move each weight to its best step, with all others as they are."""
        apart = self._steps * self._scale[:, :, np.newaxis] - self._goal  # (G, O, I)
        for index in range(apart.shape[2]):
            column = self._hessian[:, :, index, np.newaxis]  # (G, I, 1)
            slope = np.matmul(apart, column)[:, :, 0] / self._hessian[:, index, index, np.newaxis]
            best = self._goal[:, :, index] + apart[:, :, index] - slope
            steps = _to_steps(best / self._scale)
            self._steps[:, :, index] = steps
            apart[:, :, index] = steps * self._scale - self._goal[:, :, index]

    def rescale(self) -> None:
        """The best scale for the steps as they are."""
        weighted = np.matmul(self._steps, self._hessian)  # (G, O, I)
        length = np.einsum("goi,goi->go", weighted, self._steps)
        along = np.einsum("goi,goi->go", weighted, self._goal)
        best = np.where((length > 0) & (along > 0), along / np.where(length > 0, length, 1), 0)
        self._scale = _to_float32(np.where(best > self._smallest, best, self._scale))

    def result(self) -> Rounded:
        weight = self._steps * self._scale[:, :, np.newaxis]
        bias = self._target_mean - np.einsum("goi,gi->go", weight, self._mean)
        return Rounded(self._steps.astype(np.int8), self._scale.astype(np.float32), bias)

    def _best_scale(self) -> Array64:
        """The scale with which the float layer's weights have the least rounding error."""
        largest = np.abs(self._weight).max(axis=2)  # (G, O)
        variance = np.einsum("gii->gi", self._hessian)[:, np.newaxis]  # (G, 1, I)
        best, least = largest / MAX_WEIGHT, np.full(largest.shape, np.inf)
        for steps in _STEPS_OF_LARGEST:
            scale = np.maximum(largest / steps, self._smallest)
            wide = scale[:, :, np.newaxis]
            error = np.square(_to_steps(self._weight / wide) * wide - self._weight)
            total = (error * variance).sum(axis=2)
            best = np.where(total < least, scale, best)
            least = np.minimum(total, least)
        return _to_float32(best)


def _products(first: Array32, second: Array32) -> Array64:
    """Mean products of two sets of columns: (G, P, A), (G, P, B) -> (G, A, B)."""
    product = np.matmul(first.swapaxes(1, 2), second)
    mean: Array64 = product.astype(np.float64) / second.shape[1]
    return mean


def _to_steps(values: Array64) -> Array64:
    steps: Array64 = np.clip(np.rint(values), -MAX_WEIGHT, MAX_WEIGHT)
    return steps


def _to_float32(scale: Array64) -> Array64:
    """Scales are float32; steps are chosen for what they are once rounded."""
    return scale.astype(np.float32).astype(np.float64)
