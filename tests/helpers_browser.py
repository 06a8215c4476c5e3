"""A real browser for pages: Chromium without a window, started once for each page."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000",
)  # fmt: skip
# What the page looks like at each width, and what it asked of the network.
_MEASURE = """
<script>
const found = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, root = page.documentElement;
  found.push({
    width: frame.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
    title: page.title, lang: root.lang, text: page.body.innerText,
    tables: page.querySelectorAll("table").length,
    charts: [...page.querySelectorAll("svg")].map(s => s.getBoundingClientRect().width),
    images: [...page.querySelectorAll("img")].map(i => i.naturalWidth),
    scripts: page.querySelectorAll("script").length,
    hacked: frame.contentWindow.hacked === true,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(r => r.name),
    background: getComputedStyle(root).backgroundColor,
    color: getComputedStyle(root).color,
  });
}
document.body.textContent = "RESULT" + btoa(unescape(encodeURIComponent(JSON.stringify(found))));
</script>
"""


def browser() -> str:
    """The path of the browser; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed, which opens the page (apt-get install chromium)")
    return found


def run(address: str, folder: Path, *flags: str) -> tuple[str, str]:
    """Opens an address; returns standard output and what the page wrote to the console."""
    done = subprocess.run(
        [browser(), *_FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, address],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def measured(page: Path, folder: Path, *flags: str, widths: tuple[int, ...] = (400, 1200)):
    """What a page looks like in frames of several widths: one dict for each.

    The policy of the page, which forbids scripts, is removed first: what data contain would run.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    assert text != page.read_text("utf-8")
    frames = "".join(
        f'<iframe srcdoc="{html.escape(text)}" style="border:0;width:{w}px;height:900px"></iframe>'
        for w in widths
    )
    wrapper = folder / "frames.html"
    wrapper.write_text(f"<!doctype html><meta charset=utf-8><body>{frames}", "utf-8")
    script = _MEASURE.replace("<script>", "<script>addEventListener('load', () => {")
    wrapper.write_text(
        wrapper.read_text("utf-8") + script.replace("</script>", "});</script>"), "utf-8"
    )
    dom, console = run(wrapper.as_uri(), folder, "--dump-dom", "--window-size=1300,1900", *flags)
    import base64

    encoded = re.search(r"RESULT([A-Za-z0-9+/=]+)", dom)[1]
    return json.loads(base64.b64decode(encoded)), console
