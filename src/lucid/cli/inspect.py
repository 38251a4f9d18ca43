"""``lucid inspect``: what a file holds, and what each layer of a model costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from lucid.cli.model import Model, find_model, model_options
from lucid.cli.terminal import console, printable

if TYPE_CHECKING:
    from rich.table import Table

    from lucid.exporters.c.plan import Plan
    from lucid.network import SizedLayer

_CLASSES_SHOWN = 10
_VALUE_WIDTH = 100  # characters of one value; --json has all of it


@click.command("inspect")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(model: str, resolution: int | None, as_json: bool, **given: float | None) -> None:
    """Show what MODEL holds and costs: a checkpoint, a network, or mobilenet.

    --width, --classes and --last-stride are for a model named; a file has its own. Memory is that
    of the input and the output of a layer for one image, in 4 bytes (float32) or 1 byte (uint8) a
    value. Parameters count batch norm's scale and shift, also where a network has them folded into
    its weights. Scales of an int8 network are what a step of its weights, smallest and largest of
    the channels, and of its output stands for; its KiB in C are those of lucid export --format c:
    flash of its weights, biases and multipliers, and the RAM in use while the layer runs, by rows.
    """
    from lucid.network import sized_layers

    chosen = find_model(model, resolution, **given)
    side = chosen.resolution
    network = sized_layers(chosen.layers, side, side)
    if as_json:
        click.echo(json.dumps(_to_json(model, chosen, network), indent=2))
        return
    output = console()
    output.print(_description(chosen))
    output.print()
    output.print(_layer_table(network, _scales(chosen), _plan(chosen)))


def _to_json(model: str, chosen: Model, network: tuple[SizedLayer, ...]) -> dict[str, Any]:
    from lucid.network import totals

    sums = totals(network)
    header, scales, plan = chosen.header, _scales(chosen), _plan(chosen)
    in_c = _bytes_in_c(plan)
    values: dict[str, Any] = {
        "model": model,
        "arguments": chosen.arguments.to_dict() if chosen.arguments else None,
        "precision": _precision(chosen),
        "file_bytes": chosen.file_bytes,
        "class_names": list(header.class_names) if header else None,
        "preprocessing": header.preprocessing.to_dict() if header else None,
        "metrics": dict(header.metrics) if header else None,
        "provenance": dict(header.provenance) if header else None,
        "resolution": chosen.resolution,
        "layers": [
            _layer_to_json(layer) | scales.get(layer.name, {}) | in_c.get(layer.name, {})
            for layer in network
        ],
        "totals": {
            "parameters": sums.parameters,
            "multiply_adds": sums.multiply_adds,
            "peak": {"name": sums.peak.name, "activation_bytes": _activation_bytes(sums.peak)},
        },
    }
    if plan:
        name = plan.layers[plan.peak].name
        values["totals"]["peak_in_c"] = {"name": name, "bytes": in_c[name]["bytes_in_c"]}
    return values


def _layer_to_json(layer: SizedLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "input_shape": layer.input_shape,
        "output_shape": layer.output_shape,
        "kernel": layer.window,
        "stride": layer.stride,
        "parameters": layer.parameters,
        "multiply_adds": layer.multiply_adds,
        "activation_bytes": _activation_bytes(layer),
    }


def _plan(chosen: Model) -> Plan | None:
    """How an int8 network runs in the C export; None of others, and where it is too large."""
    from lucid.errors import ConfigError
    from lucid.exporters.c.export import paired
    from lucid.exporters.c.plan import make_plan
    from lucid.network import Int8Network

    if not isinstance(chosen.header, Int8Network):
        return None
    try:
        return make_plan(paired(chosen.header).layers, chosen.resolution, chosen.resolution)
    except ConfigError:
        return None


def _bytes_in_c(plan: Plan | None) -> dict[str, dict[str, int]]:
    """Of the layers of a plan, by name: flash and RAM as JSON values."""
    from lucid.exporters.c.source import layer_const_bytes

    if plan is None:
        return {}
    return {
        layer.name: {"flash_bytes_in_c": layer_const_bytes(layer), "bytes_in_c": used}
        for layer, used in zip(plan.layers, plan.layer_bytes, strict=True)
    }


def _precision(chosen: Model) -> str:
    from lucid.network import Int8Network

    return "int8" if isinstance(chosen.header, Int8Network) else "float32"


def _scales(chosen: Model) -> dict[str, dict[str, Any]]:
    """Of the layers of an int8 network, by name: scales as JSON values."""
    from lucid.network import Int8Layer, Int8Network

    if not isinstance(chosen.header, Int8Network):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for layer in chosen.header.layers:
        found[layer.name] = {"output_scale": layer.output_scale}
        if isinstance(layer, Int8Layer):
            steps = layer.weight_scale
            found[layer.name]["weight_scale"] = [float(steps.min()), float(steps.max())]
    return found


def _activation_bytes(layer: SizedLayer) -> dict[str, int]:
    return {"float32": 4 * layer.activations, "uint8": layer.activations}


def _description(chosen: Model) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for title, text in _sections(chosen):
        table.add_row(title, text)
    return table


def _sections(chosen: Model) -> Iterator[tuple[str, str]]:
    header = chosen.header
    if chosen.arguments is not None:
        yield "arguments", _listed(chosen.arguments.to_dict())
    else:
        yield "network", f"{_precision(chosen)}, {len(chosen.layers)} layers"
    if header is None:
        return
    yield "size", f"{chosen.file_bytes:,} bytes"
    names = [printable(name) for name in header.class_names[:_CLASSES_SHOWN]]
    hidden = len(header.class_names) - len(names)
    more = f", and {hidden:,} more (all in --json)" if hidden else ""
    yield "classes", f"{len(header.class_names):,}: {', '.join(names)}{more}"
    yield "preprocessing", _listed(header.preprocessing.to_dict())
    yield "metrics", _listed(dict(header.metrics)) or "none"
    yield "provenance", _listed(dict(header.provenance), separator="\n") or "none"


def _listed(values: dict[str, Any], separator: str = ", ") -> str:
    return separator.join(f"{printable(name)}={_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}..."


def _layer_table(
    network: tuple[SizedLayer, ...], scales: dict[str, dict[str, Any]], plan: Plan | None
) -> Table:
    """One row a layer; 80 columns hold width 1.0 at 224, and 125 that of an int8 network."""
    from rich.table import Table

    from lucid.network import totals

    sums = totals(network)
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer")
    table.add_column("kernel")
    table.add_column("output")
    for title in ("parameters", "multiply-\nadds", "KiB in\nfloat32", "KiB in\nuint8"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column()
    if scales:
        table.add_column("weight\nscales", no_wrap=True)
        table.add_column("output\nscale", no_wrap=True)
    if plan:
        table.add_column("KiB in C\nflash", justify="right", no_wrap=True)
        table.add_column("\nRAM", justify="right", no_wrap=True)
        table.add_column()
    in_c = _bytes_in_c(plan)
    peak_in_c = plan.layers[plan.peak].name if plan else ""
    table.add_row("input", "", _shape(network[0].input_shape))
    for layer in network:
        stride = f" /{layer.stride}" if layer.stride > 1 else ""
        is_peak = layer is sums.peak
        table.add_row(
            layer.name,
            _shape(layer.window) + stride,
            _shape(layer.output_shape),
            f"{layer.parameters:,}",
            _millions(layer.multiply_adds),
            *_kibibytes(layer),
            "peak" if is_peak else "",
            *_scale_cells(scales.get(layer.name)),
            *(f"{size / 1024:,.1f}" for size in in_c.get(layer.name, {}).values()),
            "peak" if layer.name == peak_in_c else "",
            style="bold" if is_peak else None,
        )
    table.add_row(
        "total, peak",
        "",
        "",
        f"{sums.parameters:,}",
        _millions(sums.multiply_adds),
        *_kibibytes(sums.peak),
        style="bold",
    )
    return table


def _scale_cells(scales: dict[str, Any] | None) -> Iterator[str]:
    if scales is not None:
        yield " to ".join(f"{step:.3g}" for step in scales.get("weight_scale", ()))
        yield f"{scales['output_scale']:.3g}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _kibibytes(layer: SizedLayer) -> Iterator[str]:
    return (f"{size / 1024:,.1f}" for size in _activation_bytes(layer).values())
