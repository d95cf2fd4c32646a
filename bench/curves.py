"""Curves as a picture: plain SVG, no library. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LEFT, _TOP, _WIDTH, _HEIGHT = 80, 60, 640, 320


@dataclass(frozen=True, slots=True)
class Curve:
    """*points* (x, y) by rising x; *dashes* as SVG's stroke-dasharray."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashes: str = ""


def drawn(title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> str:
    """All of them in one frame, from zero."""
    right = max(x for curve in curves for x, _ in curve.points) or 1.0
    top = max(y for curve in curves for _, y in curve.points) or 1.0

    def at(x: float, y: float) -> str:
        return f"{_LEFT + _WIDTH * x / right:.1f},{_TOP + _HEIGHT * (1 - y / top):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 40}" '
        f'height="{_TOP + _HEIGHT + 60 + 20 * len(curves)}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-size="15">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="{_TOP - 12}" fill="#666">{escape(y_label)}</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{_TOP + _HEIGHT + 38}" fill="#666" text-anchor="end">{escape(x_label)}</text>',
    ]
    for tick in range(6):
        x, y = _LEFT + _WIDTH * tick / 5, _TOP + _HEIGHT * (1 - tick / 5)
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" fill="#666" text-anchor="end">{top * tick / 5:.0f}</text>')
        below = f'y="{_TOP + _HEIGHT + 20}" fill="#666" text-anchor="middle"'
        parts.append(f'<text x="{x}" {below}>{right * tick / 5:.0f}</text>')
    for number, curve in enumerate(curves):
        points = " ".join(at(x, y) for x, y in curve.points)
        dashes = f' stroke-dasharray="{curve.dashes}"' if curve.dashes else ""
        stroke = f'fill="none" stroke="{curve.colour}" stroke-width="2"{dashes}'
        parts.append(f'<polyline points="{points}" {stroke}/>')
        y = _TOP + _HEIGHT + 56 + 20 * number
        parts.append(f'<line x1="{_LEFT}" y1="{y - 4}" x2="{_LEFT + 30}" y2="{y - 4}" {stroke}/>')
        parts.append(f'<text x="{_LEFT + 40}" y="{y}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
