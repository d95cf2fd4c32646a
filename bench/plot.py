"""The ratios as a picture: plain SVG, no library. Pure."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from bench.numbers import TARGETS, ratios

_LEFT, _WIDTH, _ROW, _TOP = 190, 520, 26, 56


def drawn(document: dict[str, Any]) -> str:
    """Horizontal bars: how much of the reference's time this plugin takes."""
    rows = [(name, ours / theirs) for name, ours, theirs in ratios(document)]
    height = _TOP + _ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 70}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="12" y="22" font-size="15">Time of routable as a share of ptp + host-local, medians of one run</text>',
        f'<text x="12" y="41" fill="#666">{escape(document["machine"])}; shorter is better; red: the target</text>',
    ]
    for tick in range(0, 11, 2):
        x = _LEFT + _WIDTH * tick / 10
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{height - 24}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" fill="#666" text-anchor="middle">{tick / 10:.1f}</text>')
    for number, (name, ratio) in enumerate(rows):
        y = _TOP + _ROW * number
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>')
        length = _WIDTH * min(1.0, ratio)
        parts.append(f'<rect x="{_LEFT}" y="{y + 5}" width="{length:.1f}" height="16" fill="#3b7dd8"/>')
        parts.append(f'<text x="{_LEFT + length + 6:.1f}" y="{y + 17}">{ratio:.2f}</text>')
        if name in TARGETS:
            x = _LEFT + _WIDTH * TARGETS[name]
            parts.append(f'<line x1="{x}" y1="{y + 2}" x2="{x}" y2="{y + 24}" stroke="#c22" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])
