"""The picture of a run over time, as an SVG that is read in light and dark and needs no font of its own. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.chaos.verdict import Span, Struck

# Pixels.
_WIDTH: Final = 960
_LEFT, _RIGHT, _TOP = 190, 30, 34
_LANE, _PLOT, _GAP = 16, 90, 34

_STYLE: Final = """
  svg { background: #ffffff; color: #1f2933 }
  text { font: 12px system-ui, sans-serif; fill: currentColor }
  .faint { fill: currentColor; opacity: 0.08 }
  .axis { stroke: currentColor; opacity: 0.4 }
  .fault { fill: #c4320a }
  .line { fill: none; stroke-width: 1.5 }
  .s0 { stroke: #2b6cb0 } .s1 { stroke: #c4320a }
  .k0 { fill: #2b6cb0 } .k1 { fill: #c4320a }
  @media (prefers-color-scheme: dark) {
    svg { background: #12181f; color: #e4e7eb }
    .fault { fill: #ff8a65 }
    .s0 { stroke: #63b3ed } .s1 { stroke: #ff8a65 }
    .k0 { fill: #63b3ed } .k1 { fill: #ff8a65 }
  }
"""

LANES: Final[Mapping[str, Callable[[str], bool]]] = {
    "replicas": lambda kind: kind.startswith(("leader", "standby", "rollout", "clock")),
    "API server": lambda kind: kind.startswith(("API server", "etcd")),
    "token endpoint": lambda kind: kind.startswith("endpoint"),
    "people": lambda kind: kind.startswith(("target", "client", "exchange")),
}
"""Where a kind of fault is drawn."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Lines over time, one or two, by name; a line's points are times in seconds and values."""

    title: str
    lines: Mapping[str, Points]


def picture(title: str, within: Span, bursts: Iterable[Span], struck: Sequence[Struck], plots: Sequence[Plot]) -> str:
    """Draw the faults in lanes, and the plots under them."""
    scale = (_WIDTH - _LEFT - _RIGHT) / within.seconds

    def x(at: float) -> float:
        return round(_LEFT + (min(max(at, within.begin), within.end) - within.begin) * scale, 1)

    height = _TOP + len(LANES) * _LANE + len(plots) * (_PLOT + _GAP) + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text x="8" y="20">{escape(title)}</text>',
    ]
    parts += [_box("faint", (x(burst.begin), x(burst.end)), (_TOP, height - 28)) for burst in bursts]
    for number, (name, belongs) in enumerate(LANES.items()):
        y = _TOP + number * _LANE
        parts.append(f'<text x="8" y="{y + 12}">{name}</text>')
        parts += [_fault(fault, x, y) for fault in struck if belongs(fault.kind)]
    for number, plot in enumerate(plots):
        parts += _plot(plot, x, _TOP + len(LANES) * _LANE + _GAP + number * (_PLOT + _GAP))
    for minute in range(0, int(within.seconds / 60) + 1, max(1, round(within.seconds / 600))):
        parts.append(
            f'<text x="{x(within.begin + minute * 60)}" y="{height - 8}" text-anchor="middle">{minute} min</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _box(style: str, x: tuple[float, float], y: tuple[float, float], about: str = "") -> str:
    """Draw a box from one place to another; what it is about shows where a pointer rests on it."""
    inside = f"<title>{escape(about)}</title>" if about else ""
    size = f'width="{x[1] - x[0]:.1f}" height="{y[1] - y[0]:.1f}"'
    return f'<rect class="{style}" x="{x[0]}" y="{y[0]}" {size}>{inside}</rect>'


def _fault(fault: Struck, x: Callable[[float], float], y: float) -> str:
    left = x(fault.at)
    sides = (left, max(x(fault.end), left + 2))
    return _box("fault", sides, (y + 3, y + _LANE - 3), f"{fault.kind} {fault.hit}".strip())


def _plot(plot: Plot, x: Callable[[float], float], top: float) -> list[str]:
    """Draw lines above a common base, with the highest value beside them."""
    bottom = top + _PLOT
    highest = max((value for points in plot.lines.values() for _, value in points), default=0.0) or 1.0
    parts = [
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH - _RIGHT}" y2="{bottom}"/>',
        f'<text x="8" y="{top + 12}">{escape(plot.title)}</text>',
        f'<text x="{_LEFT - 6}" y="{top + 12}" text-anchor="end">{highest:.3g}</text>',
    ]
    for number, (name, points) in enumerate(plot.lines.items()):
        path = " ".join(f"{x(at)},{bottom - value / highest * _PLOT:.1f}" for at, value in points)
        parts.append(f'<polyline class="line s{number}" points="{path}"/>')
        parts.append(f'<text class="k{number}" x="8" y="{top + 30 + 16 * number}">{escape(name)}</text>')
    return parts


def per_second(times: Iterable[float], within: Span, seconds: float = 10.0) -> Points:
    """Return how many of these moments there were per second, for each stretch of so many seconds."""
    counts = [0] * (int(within.seconds / seconds) + 1)
    for at in times:
        if within.begin <= at <= within.end:
            counts[int((at - within.begin) / seconds)] += 1
    return [(within.begin + (number + 0.5) * seconds, count / seconds) for number, count in enumerate(counts)]


def how_many(spans: Sequence[Span], within: Span) -> Points:
    """Return how many spans there were at a time, as steps."""
    edges = sorted([(span.begin, 1) for span in spans] + [(span.end, -1) for span in spans])
    points, count = [(within.begin, 0.0)], 0
    for at, change in edges:
        points += [(at, float(count)), (at, float(count + change))]
        count += change
    return [*points, (within.end, float(count))]
