"""Learning from a teacher: its logits and features on the very view that the student sees.

Both see the same crop with the same colours and the same mixing, each at its own resolution and
with its own normalisation; nothing is computed ahead. This is the "consistent teaching" of Beyer et
al. 2021, arXiv:2106.05237, which finds that a teacher that sees other crops teaches worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lucid.checkpoint import Checkpoint
from lucid.data.samples import quote_names
from lucid.errors import ConfigError
from lucid.models import MobileNet
from lucid.training.inputs import Normalisation, resized
from lucid.training.recipe import Precision


class Answers(NamedTuple):
    """What a teacher says of N images.

    Attributes:
        logits: float32 (N, student's classes).
        features: pooled, before its classifier; float32 (N, channels).
    """

    logits: Tensor
    features: Tensor


class PooledFeatures:
    """What the classifier of a model was last given: ``value`` (N, channels)."""

    def __init__(self, model: MobileNet) -> None:
        self.value = torch.empty(0)
        model.fc.register_forward_pre_hook(self._keep)

    def _keep(self, _classifier: nn.Module, inputs: tuple[Tensor]) -> None:
        (self.value,) = inputs


class Teacher:
    """A trained model that answers, as fast as the device allows.

    Args:
        checkpoint: of the teacher.
        class_names: of the student, in the order of its logits.
        resolution: side of the crops that the teacher sees, in pixels.
        device: on which it runs.
        precision: of the recipe; unless it is float32, the teacher computes in bfloat16 where the
            device multiplies it faster.
    Raises:
        ConfigError: the teacher knows other classes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        class_names: Sequence[str],
        *,
        resolution: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        _check_class_names(checkpoint.class_names, class_names)
        model = MobileNet.from_arguments(checkpoint.arguments)
        model.load_state_dict({n: torch.tensor(array) for n, array in checkpoint.tensors.items()})
        _fold_batch_norms(model.eval())
        is_bfloat16 = precision != "float32" and _multiplies_bfloat16(device)
        self._dtype = torch.bfloat16 if is_bfloat16 else torch.float32
        self._model = model.to(device, self._dtype)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._pooled = PooledFeatures(self._model)
        self._normalised = Normalisation(checkpoint.preprocessing, device)
        self._resolution = resolution
        order = [checkpoint.class_names.index(name) for name in class_names]
        self._order = torch.tensor(order, device=device)

    @property
    def channels(self) -> int:
        """Of its pooled features."""
        return self._model.fc.in_features

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Answers:
        """Answer for float32 images (N, C, S, S) of 0 to 1."""
        images = self._normalised(resized(images, self._resolution))
        logits: Tensor = self._model(images.to(self._dtype)).float()
        return Answers(logits[:, self._order], self._pooled.value.float())


class FeatureMatching(nn.Module):
    """How far a student's pooled features point away from the teacher's.

    A linear projection, which learns with the student, takes its features to the teacher's
    channels. Features after a ReLU all point into one corner, so that their cosine is high whatever
    the image; their mean over the batch is taken away first.

    Args:
        student: whose classifier's input is watched from here on.
        channels: of the teacher's features.
    """

    def __init__(self, student: MobileNet, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(student.fc.in_features, channels, bias=False)
        self._pooled = PooledFeatures(student)

    def forward(self, expected: Tensor) -> Tensor:
        """1 - cosine to the features (N, channels) of the teacher, 0 to 2, the batch's mean."""
        found = self._pooled.value.float()
        found = self.projection(found - found.mean(0))
        return (1 - functional.cosine_similarity(found, expected - expected.mean(0))).mean()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened probabilities, in nats, times temperature squared.

    The square keeps the gradients as large as those of a cross entropy at every temperature (Hinton
    et al. 2015, arXiv:1503.02531, section 2).

    Args:
        student, teacher: logits (N, classes).
        temperature: above 0; the logits are divided by it.
    """
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, 1),
        functional.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def _check_class_names(teacher: Sequence[str], student: Sequence[str]) -> None:
    """The teacher must know exactly the student's classes, in any order."""
    missing = [name for name in student if name not in teacher]
    foreign = [name for name in teacher if name not in student]
    if not missing and not foreign:
        return
    differences = []
    if missing:
        differences.append(f"the teacher lacks {quote_names(missing)}")
    if foreign:
        differences.append(f"the data lacks {quote_names(foreign)}")
    raise ConfigError(
        f"the teacher's classes must be those of the data: {', '.join(differences)}; "
        "train the teacher on this data first"
    )


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it: half of the time goes to them."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, nn.Identity())
    for _, child in children:
        _fold_batch_norms(child)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False
