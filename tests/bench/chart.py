"""One picture of a report: ratios as a dot a round around the bar of their median, aims as red lines."""

# The library's own types are incomplete.
# pyright: reportUnknownMemberType=false

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")  # no screen is needed
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench import acceptance, backlog, databases, open_orders, reads, replicas, throughput
from tests.bench.report import Report

_BAR, _DOT, _AIM = "#9db8d2", "#1f3b57", "#c0392b"
_STACK = ("#34516e", "#5b7fa3", "#9db8d2", "#d9b26f", "#c98a3d", "#8aa37b", "#b5b5b5", "#7d6b91")
NOT_MEASURED = "not measured"
Bar = tuple[str, Sequence[float], float | None]
"""What it is called, a value a round, and the aim."""


def draw(report: Report, file: Path) -> None:
    """Keep the picture of a report as a PNG."""
    figure = picture(report)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def picture(report: Report) -> Figure:
    """The picture of a report. A panel of which nothing was measured says so."""
    figure, places = plt.subplots(2, 3, figsize=(15, 9))
    for place, (title, drawn) in zip(places.flat, _PANELS.items(), strict=True):
        if not drawn(place, report):
            place.clear()
            place.text(0.5, 0.5, NOT_MEASURED, ha="center", va="center", transform=place.transAxes)
            place.set_axis_off()
        place.set_title(title, fontsize=10, loc="left")
    caption = textwrap.fill(report.headline().replace("**", ""), 190)
    reliable = report.load.quiet and not report.quick
    figure.text(0.01, 0.01, caption, fontsize=8, color="black" if reliable else _AIM, va="bottom")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def _settled(place: Axes, report: Report) -> bool:
    aims = {throughput.SHOP: throughput.AIM}
    return _bars(place, [
        (kind, _figures(report, throughput.NUMBER, f"ratio: {kind}"), aims.get(kind))
        for kind in (throughput.SHOP, throughput.ENGINE, throughput.EMPTY)
    ])  # fmt: skip


def _others(place: Axes, report: Report) -> bool:
    return _bars(place, [
        (f"{of} /\n{to}", _figures(report, number, f"ratio: {of}"), aim)
        for number, of, to, aim in (
            (acceptance.NUMBER, acceptance.SHOP, acceptance.BARE, acceptance.AIM),
            (reads.NUMBER, reads.SHOP, reads.BARE, reads.AIM),
            (replicas.NUMBER, replicas.TWO, replicas.ONE, None),
            (databases.NUMBER, databases.MYSQL, databases.SQLITE, databases.AIM),
        )
    ])  # fmt: skip


def _bars(place: Axes, bars: Sequence[Bar]) -> bool:
    bars = [bar for bar in bars if bar[1]]
    for at, (_, values, aim) in enumerate(bars):
        place.bar(at, statistics.median(values), width=0.6, color=_BAR)
        place.plot([at] * len(values), values, "o", color=_DOT, markersize=4)
        place.annotate(f"{statistics.median(values):.2f}", (at, 0), (0, 4), textcoords="offset points", ha="center")
        if aim is not None:
            place.plot([at - 0.4, at + 0.4], [aim, aim], color=_AIM)
    place.set_xticks(range(len(bars)), [name for name, _, _ in bars], fontsize=8)
    place.axhline(1, color="gray", linewidth=0.5)
    return bool(bars)


def _latency(place: Axes, report: Report) -> bool:
    if report.part(throughput.NUMBER) is None:
        return False
    kinds = (throughput.SHOP, throughput.BARE, throughput.EMPTY)
    series = ("alone p50 ms", "alone p99 ms", "p50 ms", "p99 ms")
    names = ("p50, one at a time", "p99, one at a time", "p50, many at once", "p99, many at once")
    for number, (figure, name) in enumerate(zip(series, names, strict=True)):
        heights = [_figures(report, throughput.NUMBER, f"{figure}: {kind}")[0] for kind in kinds]
        place.bar(
            [at + 0.2 * (number - 1.5) for at in range(len(kinds))], heights, 0.18, label=name, color=_STACK[number]
        )
    place.set_xticks(range(len(kinds)), kinds, fontsize=8)
    place.set_yscale("log")
    place.set_ylabel("ms on this machine")
    place.legend(fontsize=8)
    return True


def _cpu(place: Axes, report: Report) -> bool:
    part = report.part(throughput.NUMBER)
    kinds = (throughput.SHOP, throughput.ENGINE, throughput.BARE, throughput.EMPTY)
    if part is None:
        return False
    used = {
        kind: {
            name.removeprefix(f"CPU ms: {kind}: "): values[0]
            for name, values in part.figures.items()
            if name.startswith(f"CPU ms: {kind}: ")
        }
        for kind in kinds
    }
    below = [0.0] * len(kinds)
    for number, what in enumerate(dict.fromkeys(name for of_kind in used.values() for name in of_kind)):
        heights = [used[kind].get(what, 0.0) for kind in kinds]
        place.bar(range(len(kinds)), heights, 0.6, bottom=below, label=what, color=_STACK[number % len(_STACK)])
        below = [one + more for one, more in zip(below, heights, strict=True)]
    place.set_xticks(range(len(kinds)), kinds, fontsize=8)
    place.set_ylabel("CPU ms each")
    place.legend(fontsize=8)
    return True


def _open(place: Axes, report: Report) -> bool:
    number = open_orders.NUMBER
    levels = [int(level) for level in _figures(report, number, "open")]
    return _bars(place, [
        (f"{level:,} open", _figures(report, number, f"ratio: {level}"), open_orders.AIM) for level in levels
    ])  # fmt: skip


def _backlog(place: Axes, report: Report) -> bool:
    meanwhile = _figures(report, backlog.NUMBER, "meanwhile ms")
    if not meanwhile:
        return False
    after = _figures(report, backlog.NUMBER, "after ms")
    place.plot(range(len(meanwhile)), [one / 1000 for one in meanwhile], ".-", color=_AIM, label="while it drains")
    late = range(len(meanwhile), len(meanwhile) + len(after))
    place.plot(late, [one / 1000 for one in after], ".-", color=_DOT, label="without a backlog")
    place.set_xlabel("new order")
    place.set_ylabel("s until DeliveryStarted, on this machine")
    place.set_ylim(bottom=0)
    place.legend(fontsize=8)
    return True


def _figures(report: Report, number: int, name: str) -> list[float]:
    part = report.part(number)
    return part.figures.get(name, []) if part else []


_PANELS = {
    f"Settled, as a share of {throughput.BARE}": _settled,
    "Each beside its measure": _others,
    "Latency until DeliveryStarted, or the workflow's end": _latency,
    "CPU of one, by process": _cpu,
    "New orders beside open ones: filled shop / empty shop": _open,
    "New orders after the delivery team was away": _backlog,
}
