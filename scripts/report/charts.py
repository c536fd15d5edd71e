"""What is drawn, as Vega-Lite: each chart is made here once and gets its rows from the page that shows it.

The rows come under the name ROWS, and what is drawn beside them under names of its own. Colours are those of
the theme (Okabe and Ito's) and cividis, which the colour-blind tell apart.
"""

from functools import cache
from typing import Any

import altair as alt

ROWS = "rows"

BETTER, WORSE, SAVED = "#009E73", "#D55E00", "#56B4E9"
"""Okabe and Ito's green, vermilion and sky blue: they read on light and on dark. The others' are the theme's."""

SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
GREY = "#8a8a8a"
"""Reads on light and on dark."""

SOURCE = [alt.Tooltip("commit:N"), alt.Tooltip("file:N", title="result file")]
"""Where a figure comes from."""

Chart = alt.Chart | alt.LayerChart | alt.FacetChart

TOLD: dict[str, str] = {"tooltip": "told:N", "description": "told:N"}
"""What a line says of itself, to those who hover and to screen readers."""

CELL = 64
HEIGHT = 340
ACROSS = alt.AutoSizeParams(type="fit-x", contains="padding")
"""As wide as the page, and as high as there are rows."""


def named(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name))


def rows() -> alt.Chart:
    return named(ROWS)


def colour(field: str, title: str) -> alt.Color:
    return alt.Color(f"{field}:N", title=title)


def shape(field: str, title: str) -> alt.Shape:
    return alt.Shape(f"{field}:N", title=title, scale=alt.Scale(range=SHAPES))


def figure(name: str, title: str, pattern: str = ".3~s") -> alt.Tooltip:
    return alt.Tooltip(f"{name}:Q", title=title, format=pattern)


CASE = [
    alt.Tooltip("case:N"),
    figure("milliseconds", "ms a step", ".4~g"),
    figure("plus_minus", "±", ".1%"),
    figure("gigabytes_per_second", "GB/s", ".3~g"),
    figure("ceiling_fraction", "of the ceiling", ".1%"),
    alt.Tooltip("ceiling:N"),
    figure("peak_ratio", "peak over ideal", ".3~g"),
    figure("error", "error", ".1~e"),
    alt.Tooltip("notes:N"),
    *SOURCE,
]
"""What hovering over a case tells."""


def heat() -> Chart:
    """Variant by tree, of one precision: the share of the ceiling, with milliseconds written in."""
    place = rows().encode(
        x=alt.X("tree:N", title=None, sort=None, axis=alt.Axis(labelAngle=-35, orient="top")),
        y=alt.Y("variant:N", title=None),
    )
    known = "isValid(datum.ceiling_fraction)"
    share = alt.Color(
        "ceiling_fraction:Q",
        scale=alt.Scale(scheme="cividis", domain=[0, 1], clamp=True),
        legend=alt.Legend(title="of the ceiling", format=".0%", values=[0, 0.25, 0.5, 0.75, 1]),
    )
    measured = place.transform_filter(known).mark_rect(stroke="white").encode(color=share, tooltip=CASE, href="link:N")
    absent = [alt.Tooltip("case:N"), alt.Tooltip("state:N"), alt.Tooltip("why:N"), alt.Tooltip("notes:N"), *SOURCE]
    unknown = (
        place.transform_filter(f"!{known}")
        .mark_rect(fill=GREY, fillOpacity=0.15, stroke=GREY, strokeDash=[3, 3])
        .encode(tooltip=absent)
    )
    dark = alt.condition("datum.ceiling_fraction > 0.55", alt.value("black"), alt.value("white"))
    numbers = place.transform_filter(known).encode(text="label:N", color=dark, tooltip=CASE, href="link:N")
    written = numbers.transform_filter("!datum.fastest").mark_text(fontSize=12)
    fastest = numbers.transform_filter("datum.fastest").mark_text(fontSize=13, fontWeight="bold")
    beside = place.transform_filter(f"!{known}").mark_text(fontSize=11).encode(text="label:N", tooltip=absent)
    return alt.layer(measured, unknown, written, fastest, beside).properties(width=alt.Step(CELL), height=alt.Step(28))


def sizes() -> Chart:
    """Achieved bandwidth against the size of the tree, below the ceilings, right of the cache and of the launches."""
    across = alt.X(
        "resident_bytes:Q",
        scale=alt.Scale(type="log"),
        title="bytes of parameters, gradients and state",
        axis=alt.Axis(format="~s"),
    )
    up = alt.Y(
        "gigabytes_per_second:Q", scale=alt.Scale(type="log"), title="GB/s of ideal bytes", axis=alt.Axis(format="~g")
    )
    points = (
        rows()
        .mark_point(filled=True, size=70)
        .encode(x=across, y=up, color=colour("variant", "variant"), shape=shape("precision", "precision"), tooltip=CASE)
    )
    cache = named("cache").mark_rect(fill=GREY, opacity=0.15).encode(x="start:Q", x2="end:Q", **TOLD)
    roof = (
        named("ceilings")
        .mark_rule(strokeWidth=2)
        .encode(
            y="gigabytes_per_second:Q",
            strokeDash=alt.StrokeDash("kind:N", title="limit"),
            **TOLD,
        )
    )
    slope = (
        named("launch")
        .mark_line(strokeWidth=2, color=GREY)
        .encode(
            x="resident_bytes:Q",
            y="gigabytes_per_second:Q",
            strokeDash="kind:N",
            **TOLD,
        )
    )
    return alt.layer(cache, roof, slope, points).properties(width="container", height=HEIGHT)


def intensity() -> Chart:
    """The classical roofline: operations a second against operations a byte."""
    across = alt.X("operations_per_byte:Q", scale=alt.Scale(type="log"), title="operations a byte")
    up = alt.Y(
        "gigaoperations_per_second:Q",
        scale=alt.Scale(type="log"),
        title="10⁹ operations a second",
        axis=alt.Axis(format="~g"),
    )
    roof = (
        named("roofs")
        .mark_line(strokeWidth=2)
        .encode(
            x="operations_per_byte:Q",
            y="gigaoperations_per_second:Q",
            strokeDash=alt.StrokeDash("kind:N", title="limit"),
            **TOLD,
        )
    )
    told = [CASE[0], figure("operations_per_byte", "operations a byte", ".3~g"), *CASE[1:]]
    points = (
        rows()
        .mark_point(filled=True, size=70)
        .encode(x=across, y=up, color=colour("variant", "variant"), shape=shape("precision", "precision"), tooltip=told)
    )
    return alt.layer(roof, points).properties(width="container", height=HEIGHT)


def waterfall() -> Chart:
    """From the roofline's milliseconds to the measured ones."""
    place = rows().encode(
        y=alt.Y("part:N", sort=None, title=None, axis=alt.Axis(labelLimit=140)),
        tooltip=[
            alt.Tooltip("part:N"),
            figure("milliseconds", "ms", ".4~g"),
            figure("share", "of the measurement", ".1%"),
            alt.Tooltip("how:N"),
            alt.Tooltip("case:N"),
            *SOURCE,
        ],
    )
    kinds = alt.Scale(domain=["roofline", "lost", "gained", "measured"], range=[BETTER, WORSE, SAVED, GREY])
    bars = place.mark_bar().encode(
        x=alt.X("start:Q", title="milliseconds a step", axis=alt.Axis(tickCount=8)),
        x2="end:Q",
        color=alt.Color("kind:N", scale=kinds, title=None),
    )
    written = place.mark_text(align="left", dx=5).encode(x="right:Q", text="label:N")
    return alt.layer(bars, written).properties(width="container", height=alt.Step(34), autosize=ACROSS)


def history(by_date: bool) -> Chart:
    """A metric of some variants on some machines, commit by commit, with what it is held against and what changed."""
    axis = alt.Axis(labelAngle=0) if by_date else alt.Axis(format="d", tickMinStep=1)
    across = alt.X(
        "date:T" if by_date else "position:Q",
        title="commit date" if by_date else "commit, counted from the first",
        axis=axis,
        scale=alt.Scale(zero=False),
    )
    up = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format=".5~g"))
    told = [
        alt.Tooltip("line:N", title="series"),
        figure("value", "value", ".6~g"),
        figure("low", "99 % from", ".6~g"),
        figure("high", "to", ".6~g"),
        figure("roofline", "roofline", ".6~g"),
        alt.Tooltip("commit:N"),
        alt.Tooltip("subject:N"),
        alt.Tooltip("date:T"),
        alt.Tooltip("pins:N"),
        alt.Tooltip("file:N", title="result file"),
    ]
    line = rows().encode(x=across, color=colour("line", "series"))
    band = line.transform_filter("isValid(datum.low)").mark_area(opacity=0.25).encode(y=alt.Y("low:Q"), y2="high:Q")
    roofline = (
        line.transform_filter("isValid(datum.roofline)")
        .mark_line(strokeDash=[6, 4], strokeWidth=1)
        .encode(y="roofline:Q")
    )
    values = line.mark_line(strokeWidth=1.5).encode(y=up)
    points = line.mark_point(filled=True, size=28, opacity=1).encode(
        y=up, shape=shape("machine", "machine"), tooltip=told, href="link:N"
    )
    field = "date:T" if by_date else "position:Q"
    steps = (
        named("changes")
        .mark_rule(strokeWidth=4, opacity=0.7)
        .encode(
            x=field,
            color=alt.condition("datum.worse", alt.value(WORSE), alt.value(BETTER)),
            tooltip=[alt.Tooltip("told:N", title="change"), "state:N", "alert:N", "commits:N"],
            description="spoken:N",
        )
    )
    bumps = (
        named("bumps")
        .mark_rule(strokeDash=[2, 3], color=GREY)
        .encode(x=field, tooltip=[alt.Tooltip("told:N", title="changed")])
    )
    words = (
        named("bumps")
        .mark_text(align="left", baseline="top", dx=3, color=GREY)
        .encode(x=field, y=alt.value(2), text="told:N")
    )
    return alt.layer(bumps, words, steps, band, roofline, values, points).properties(width="container", height=HEIGHT)


def memory() -> Chart:
    """What a variant holds, against the least it could."""
    place = rows().encode(y=alt.Y("variant:N", title=None))
    told = [
        alt.Tooltip("case:N"),
        alt.Tooltip("kind:N"),
        figure("megabytes", "MB", ",.4~g"),
        figure("ratio", "over ideal", ".3~g"),
    ]
    bars = place.mark_bar().encode(
        x=alt.X("megabytes:Q", title="MB (10⁶ bytes)", axis=alt.Axis(tickCount=8)),
        yOffset=alt.YOffset("kind:N", sort=None),
        color=alt.Color("kind:N", sort=None, title=None),
        tooltip=[*told, *SOURCE],
    )
    ideal = named("ideal").mark_rule(strokeWidth=2, strokeDash=[4, 3]).encode(x="megabytes:Q", **TOLD)
    return alt.layer(bars, ideal).properties(width="container", height=alt.Step(11), autosize=ACROSS)


def accuracy() -> alt.Chart:
    """How wrong and how fast: the lower left is best."""
    return (
        rows()
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X(
                "milliseconds:Q",
                scale=alt.Scale(type="log", nice=False, padding=25),
                title="milliseconds a step",
                axis=alt.Axis(format="~g"),
            ),
            y=alt.Y(
                "error:Q",
                scale=alt.Scale(type="log", nice=False, padding=25),
                title="largest relative error",
                axis=alt.Axis(format=".0e"),
            ),
            color=colour("variant", "variant"),
            shape=shape("precision", "precision"),
            tooltip=[*CASE, figure("long_run_error", "error of the way, 2000 steps", ".2~g")],
        )
        .properties(width="container", height=HEIGHT)
    )


def calibration() -> Chart:
    """What share of the comparisons called a slowdown of a known size slower; at none, every one is a false alarm."""
    return (
        rows()
        .mark_line(point={"size": 60})
        .encode(
            x=alt.X("slowdown:Q", title="true slowdown", axis=alt.Axis(format="~%")),
            y=alt.Y("share:Q", title="called slower", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])),
            color=colour("method", "judged by"),
            tooltip=[
                "method:N",
                figure("slowdown", "slowdown", ".2%"),
                figure("share", "called slower", ".1%"),
                "comparisons:Q",
                "separate:Q",
                "on:N",
                *SOURCE,
            ],
        )
        .properties(width="container", height=HEIGHT)
    )


def noise() -> alt.Chart:
    """Every series' noise from night to night."""
    return (
        rows()
        .mark_tick(thickness=2)
        .encode(
            x=alt.X("noise:Q", title="standard deviation from night to night", axis=alt.Axis(format="~%")),
            y=alt.Y("metric:N", title=None, axis=alt.Axis(labelLimit=220)),
            tooltip=["case:N", "metric:N", figure("noise", "noise", ".2%"), "points:Q"],
        )
        .properties(width="container", height=alt.Step(28), autosize=ACROSS)
    )


def controls() -> alt.Chart:
    """The work that no commit can change: when it moves, the machine moved."""
    return (
        rows()
        .mark_line(point=True)
        .encode(
            x=alt.X("measured:T", title="measured"),
            y=alt.Y("over_median:Q", title="seconds over their median", scale=alt.Scale(zero=False)),
            color=colour("control", "control"),
            tooltip=[
                "control:N",
                figure("seconds", "seconds", ".4~s"),
                figure("over_median", "over the median", ".3f"),
                *SOURCE,
            ],
        )
        .properties(width="container", height=240)
    )


def releases() -> alt.Chart:
    """A figure of every case, release by release."""
    return (
        rows()
        .mark_line(point={"size": 50})
        .encode(
            x=alt.X("release:N", title="MLX", sort=None, axis=alt.Axis(labelAngle=-45)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(type="symlog", constant=1e-8), axis=alt.Axis(format=".3~g")),
            color=colour("case", "case"),
            tooltip=[
                "release:N",
                "case:N",
                figure("value", "value", ".4~g"),
                "processes:Q",
                "machine:N",
                alt.Tooltip("file:N", title="result file"),
            ],
        )
        .properties(width="container", height=240)
    )


@cache
def every() -> dict[str, dict[str, Any]]:
    """The charts by name, as Vega-Lite."""
    made = {
        "heat": heat(),
        "sizes": sizes(),
        "intensity": intensity(),
        "waterfall": waterfall(),
        "history": history(by_date=False),
        "history_by_date": history(by_date=True),
        "memory": memory(),
        "accuracy": accuracy(),
        "calibration": calibration(),
        "noise": noise(),
        "controls": controls(),
        "releases": releases(),
    }
    return {name: chart.to_dict() for name, chart in made.items()}
