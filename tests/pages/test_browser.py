"""Pages in a real browser: what they load, how wide they are, colors and paper."""

import re

import pytest
from helpers_browser import measured, run
from helpers_reports import EVIL, HISTORY, NAMES, SETTINGS, report_on, results

DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")


@pytest.fixture(scope="module", params=["en", "zh"])
def page(request, tmp_path_factory):
    """A page with everything that needs no model, and data with markup in them."""
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    return report_on(duplicates=3).save_html(
        path, request.param, results=results(rows=12), history=HISTORY, settings=SETTINGS
    )


@pytest.mark.slow
def test_a_page_fits_phones_and_screens_loads_nothing_and_runs_nothing(page, tmp_path):
    frames, console = measured(page, tmp_path)
    assert console == ""
    for frame, width in zip(frames, (400, 1200), strict=True):
        assert (frame["width"], frame["scroll"]) == (width, width)
        assert frame["requests"] == [] and frame["scripts"] == 0 and not frame["hacked"]
        assert frame["tables"] >= 10 and len(frame["charts"]) > 8
        assert all(40 < chart <= width for chart in frame["charts"])
        wanted = {"en": "The model is better than the baseline", "zh-Hans": "模型优于基线"}
        assert wanted[frame["lang"]] in frame["text"]
        for name in NAMES[:4]:
            assert name in frame["text"]
        assert EVIL in frame["text"] and "שלום עולם" in frame["text"]


def test_the_browser_sees_scripts_requests_and_what_is_too_wide(tmp_path):
    """Otherwise the test above could not fail."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<meta http-equiv="Content-Security-Policy" content="default-src *">'
        '<script>window.hacked = true; console.error("broken")</script><img src="http://127.0.0.1:9/x.png">'
        '<div style="width:900px">wide</div><svg width=500></svg>'
    )
    (frame,), console = measured(bad, tmp_path, widths=(400,))
    assert frame["hacked"] and frame["scripts"] == 1 and frame["scroll"] > 800
    assert frame["requests"] and "broken" in console


def test_a_page_as_it_is_has_no_errors_and_prints_on_paper(page, tmp_path):
    """Its own policy does not forbid anything that it needs."""
    pdf = tmp_path / "page.pdf"
    _, console = run(page.as_uri(), tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    assert console == ""
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
    assert 3 <= pages <= 15


@pytest.mark.slow
def test_a_page_follows_the_color_scheme(page, tmp_path):
    brightness = {}
    for scheme, flags in {"light": (), "dark": DARK}.items():
        (frame,), console = measured(page, tmp_path, *flags, widths=(800,))
        assert console == ""
        brightness[scheme] = [luminance(frame[key]) for key in ("background", "color")]
    (paper, ink), (dark_paper, dark_ink) = brightness["light"], brightness["dark"]
    assert paper == 1.0 and dark_paper < 0.02
    # WCAG 2 asks for a contrast of 7 for text (level AAA).
    assert (paper + 0.05) / (ink + 0.05) > 7 and (dark_ink + 0.05) / (dark_paper + 0.05) > 7


def luminance(color):
    """The relative luminance of "rgb(…)", from 0 to 1."""
    levels = [int(level) / 255 for level in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
