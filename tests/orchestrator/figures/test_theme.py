"""Colours: contrast by the formula of WCAG 2.2, and how far series are apart for those who see fewer colours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pytest

from orchestrator.figures.theme import DARK, DASHES, LIGHT, SERIES, SHAPES, series_scales, with_colours
from tests import ROOT

TEXT, GRAPHICS = 4.5, 3.0  # contrast that WCAG asks for
DISTANCE = 18.0  # between two colours in CIELAB; 2.3 is just noticeable

# Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009: full deficiency, for linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(TO_XYZ[1] @ linear(colour))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def page_colours(scheme: str) -> dict[str, str]:
    """The colours that only the page has, from its style sheet."""
    blocks = (ROOT / "orchestrator/page/page.css").read_text().split("@media screen and (prefers-color-scheme: dark)")
    text = blocks[0] if scheme == "light" else blocks[1]
    words = text[: text.index("}")].replace(":root", "").split(";")
    pairs = (word.strip().lstrip("{ \n").split(":") for word in words if "--" in word and "#" in word)
    return {name.strip().removeprefix("--"): value.strip() for name, value in pairs}


@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_contrast_is_enough(scheme: str, colours: Mapping[str, str]) -> None:
    page = page_colours(scheme)
    assert {"card", "good", "bad", "accent", "link"} <= page.keys()
    for background in (colours["paper"], page["card"], page["good"], page["bad"]):
        assert contrast(colours["ink"], background) >= TEXT
    for background in (colours["paper"], page["card"]):
        assert contrast(colours["muted"], background) >= TEXT
        assert contrast(page["link"], background) >= TEXT
    for series in SERIES:
        assert contrast(colours[series], colours["paper"]) >= GRAPHICS


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
def test_series_are_told_apart(colours: Mapping[str, str], deficiency: str | None) -> None:
    seen = np.array(DEFICIENCIES[deficiency]) if deficiency else np.eye(3)
    places = {name: lab(seen @ linear(colours[name])) for name in SERIES}
    distances = {pair: float(np.linalg.norm(places[pair[0]] - places[pair[1]])) for pair in combinations(SERIES, 2)}
    assert min(distances.values()) >= DISTANCE, min(distances, key=lambda pair: distances[pair])


def test_series_differ_in_colour_or_shape_and_keep_their_look() -> None:
    names = [f"method {number}" for number in range(30)]
    colours, shapes, dashes = series_scales(names)
    looks = list(zip(colours["range"], shapes["range"], map(str, dashes["range"]), strict=True))
    assert len(set(looks)) == len(looks) == len(SHAPES) * 5 == len(DASHES) * 5
    assert set(colours["range"]) == {f"var(--{name})" for name in SERIES}
    assert [scale["range"] for scale in series_scales(names[7:9], names)] == [
        scale["range"][7:9] for scale in (colours, shapes, dashes)
    ]
    assert series_scales(["dense"])[0]["range"] == ["var(--muted)"]


def test_files_have_colours_for_variables() -> None:
    assert with_colours('"var(--ink)" var(--series-2)', LIGHT) == f'"{LIGHT["ink"]}" {LIGHT["series-2"]}'
    with pytest.raises(KeyError):
        with_colours("var(--unknown)", LIGHT)
