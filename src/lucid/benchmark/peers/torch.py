"""PyTorch in eager mode: folded layers, channels last, inference mode."""

from __future__ import annotations

from typing import Any

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.images import Pixels, normalise
from lucid.network import FloatLayer, FloatNetwork

__all__ = ["module", "prepare", "runner"]


def prepare(task: Task) -> Runner:
    """The module as it is."""
    return runner(task, module(task.workload.network, task.workload.size))


def runner(task: Task, model: Any) -> Runner:
    """A module's call, for batches in channels-last memory of the precision asked for."""
    torch = require("torch", extra="benchmark")
    torch.set_num_threads(task.candidate.threads)
    dtype = getattr(torch, task.candidate.precision)
    model = model.to(dtype).to(memory_format=torch.channels_last)

    def take(pixels: Pixels) -> Any:
        batch = torch.from_numpy(normalise(pixels, task.workload.network.preprocessing)).to(dtype)
        return batch.to(memory_format=torch.channels_last)

    def run(batch: Any) -> Any:
        with torch.inference_mode():
            return model(batch)

    return Runner(take, run, lambda logits: logits.float().numpy(), {"version": torch.__version__})


def module(network: FloatNetwork, size: tuple[int, int]) -> Any:
    """The folded network as a module in evaluation mode: normalised (N, C, H, W) -> logits."""
    torch = require("torch", extra="benchmark")
    nn = torch.nn
    parts: list[Any] = []
    height, width = size
    for layer in network.layers:
        if not isinstance(layer, FloatLayer):
            parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            continue
        if layer.kind == "dense":
            part = nn.Linear(layer.in_channels, layer.out_channels)
        else:
            (top, bottom), (left, right) = layer.border(height), layer.border(width)
            # A convolution that pads by itself is faster; what symmetric padding adds behind the
            # image and no window sees does no harm.
            pads_itself = layer.padding == "symmetric" or top == bottom == left == right
            if not pads_itself:
                parts.append(nn.ZeroPad2d((left, right, top, bottom)))
            part = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel,
                layer.stride,
                layer.kernel // 2 if pads_itself else 0,
                groups=layer.in_channels if layer.kind == "depthwise" else 1,
            )
            height, width = layer.output_side(height), layer.output_side(width)
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(layer.weight.copy()))
            part.bias.copy_(torch.from_numpy(layer.bias.copy()))
        parts.append(part)
        if layer.activation is not None:
            parts.append({"relu": nn.ReLU, "relu6": nn.ReLU6}[layer.activation]())
    return nn.Sequential(*parts).eval()
