"""What tests of charts share: a reader of the Mermaid text, and modules of several kinds."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

import torch
from torch import nn

_NODE = re.compile(r'(\w+)(?:\["|\(\[")(.*?)(?:"\]\)?);')
_BOX = re.compile(r'subgraph sg_(\w+)\["(.*)"\]')
_EDGE = re.compile(r"(\w+) (-->|-\.->) (\w+);")


@dataclass(frozen=True)
class Chart:
    """A chart read back; titles are the labels without their small print."""

    titles: dict[str, str]  # of leaves, pills, inputs and the output, by id
    details: dict[str, str]
    boxes: dict[str, str]  # titles by id
    edges: dict[tuple[str, str], str]  # arrow by ends
    text: str

    @property
    def layers(self) -> list[str]:
        """Titles of the leaves, in the order of the text."""
        return [title for node, title in self.titles.items() if re.fullmatch(r"m\d+", node)]

    def path(self) -> list[str]:
        """Titles along the chart, which must be one chain from input to output."""
        followers = dict(self.edges.keys())
        assert len(followers) == len(self.edges) == len(self.titles) - 1, self.text
        nodes = ["input"]
        while nodes[-1] != "output":
            nodes.append(followers[nodes[-1]])
        assert len(nodes) == len(self.titles), self.text
        return [self.titles[node] for node in nodes]


def read_chart(text: str) -> Chart:
    """Read a chart; asserts that every line is understood and every edge ends at a node."""
    titles, details, boxes, edges = {}, {}, {}, {}
    depth = 0
    for line in map(str.strip, text.splitlines()):
        if edge := _EDGE.fullmatch(line):
            edges[edge[1], edge[3]] = edge[2]
        elif box := _BOX.fullmatch(line):
            boxes[box[1]] = _plain(box[2])
            depth += 1
        elif node := _NODE.fullmatch(line):
            title, _, detail = node[2].partition("<br/>")
            titles[node[1]], details[node[1]] = _plain(title), _plain(detail)
        elif line == "end":
            depth -= 1
        elif "~~~" not in line:  # an edge that is not seen
            assert line.startswith(("%%{init", "flowchart", "linkStyle", "direction", "style")), (
                line
            )
    assert depth == 0
    for ends in edges:
        assert set(ends) <= set(titles), ends
    return Chart(titles, details, boxes, edges, text)


def _plain(label: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", label)).strip()


class Block(nn.Module):
    """A residual block; its one ReLU is called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(y)))


class ResidualNet(nn.Module):
    """Residual blocks, and an auxiliary head that evaluation does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8), Block(8))
        self.auxiliary = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(self.stem(x)).mean((2, 3))
        return self.head(y) + (self.auxiliary(y).sum() if self.training else 0)


class Encoder(nn.Module):
    """A transformer encoder over tokens; its attention never calls its own out_proj."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.encoder(self.embedding(tokens))
        return {"logits": self.head(features[:, 0]), "features": features}


class Siamese(nn.Module):
    """Two inputs through one encoder, and a functional comparison of both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
        self.compare = nn.Bilinear(5, 5, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.encoder(left), self.encoder(right)
        return self.compare(a, b), (a - b).norm(dim=1)
