"""The documentation site: every public name has a place, and the site builds and works offline."""

import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import finetune_tf as ft

ROOT = Path(__file__).resolve().parents[2]
needs_sphinx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="needs the extra `docs`",
)


@pytest.fixture(scope="module")
def reference():
    """The module that says which name is on which page."""
    path = ROOT / "docs" / "sphinx_site" / "reference.py"
    spec = importlib.util.spec_from_file_location("finetune_tf_reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks for it there
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_one_place_in_the_reference(reference):
    placed = [name for _, _, names in reference.contents().values() for name in names]
    assert len(placed) == len(set(placed)) > 100
    assert {"load", "FineTuneModel", "select.head", "presets.cross_entropy"} <= set(placed)
    assert {"callbacks.EMA", "evaluation.Report", "adapters.LoRA", "data.Examples"} <= set(placed)
    shown = {id(reference.public_names()[name]) for name in placed}
    for name in ft.__all__:
        value = getattr(ft, name)
        assert id(value) in shown or name in reference.public_modules() or name == "__version__"


def test_names_stand_on_the_page_of_what_defines_them(reference):
    pages = {key: names for key, (_, _, names) in reference.contents().items()}
    assert {"load", "fuse", "Stage"} <= set(pages["loading"])
    assert {"freeze", "train_only", "select.blocks"} <= set(pages["freezing"])
    assert {"evaluate", "evaluation.Report"} <= set(pages["evaluation"])


def test_a_public_name_without_a_place_is_an_error_that_says_what_to_do(reference, monkeypatch):
    def forecast():
        """A function of a package that no page knows."""

    forecast.__module__ = "finetune_tf.weather.forecasts"
    monkeypatch.setattr(ft, "forecast", forecast, raising=False)
    monkeypatch.setattr(ft, "__all__", [*ft.__all__, "forecast"])
    with pytest.raises(LookupError, match=r"ft\.forecast is public.*finetune_tf\.weather.*PAGES"):
        reference.contents()


def test_a_public_module_without_a_page_gets_one_of_its_own(reference, monkeypatch):
    import types

    weather = types.ModuleType("finetune_tf.weather", "Forecasts.")
    weather.__all__ = ["forecast"]
    weather.forecast = lambda: None
    weather.forecast.__module__ = "finetune_tf.weather.forecasts"
    monkeypatch.setattr(ft, "weather", weather, raising=False)
    monkeypatch.setattr(ft, "__all__", [*ft.__all__, "weather"])
    assert reference.contents()["weather"] == ("ft.weather", ["weather"], ["weather.forecast"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    result = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    return folder / "html"


def page(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.slow
@needs_sphinx
def test_the_site_has_a_page_for_every_page_and_notebook(site):
    sources = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    assert len(sources) > 15
    for source in sources:
        assert (site / source.relative_to(ROOT)).with_suffix(".html").is_file()
        # and the index leads to it
        if source.stem != "index":
            assert re.search(
                rf'href="[^"]*{re.escape(source.stem)}\.html"', page(site, "docs/index")
            )


@pytest.mark.slow
@needs_sphinx
def test_every_public_name_is_described_where_the_contents_say(site, reference):
    for key, (_, _, names) in reference.contents().items():
        text = page(site, f"docs/reference/{key}")
        for name in names:
            assert f'id="finetune_tf.{name}"' in text, name


@pytest.mark.slow
@needs_sphinx
def test_nothing_is_loaded_from_the_network(site):
    """Links to other pages of the web are fine; scripts, styles, fonts and images are not."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="(?!canonical)[^"]*"[^>]+href="([^"]+)"', text)
        assert loaded or "refresh" in text
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text("utf-8")), path.name


@pytest.mark.slow
@needs_sphinx
def test_links_between_pages_lead_to_anchors_that_exist(site):
    anchors = {}
    for path in site.rglob("*.html"):
        anchors[path] = set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))
    checked = 0
    for path in site.rglob("*.html"):
        for link in re.findall(r'<a [^>]*href="([^"]+)"', path.read_text(encoding="utf-8")):
            target, _, anchor = html.unescape(link).partition("#")
            if re.match(r"\w+:", target) or not (target or anchor):
                continue
            linked = (path.parent / target).resolve() if target else path
            assert linked.exists(), f"{path.name} links to {link}"
            if anchor and linked in anchors:
                assert anchor in anchors[linked], f"{path.name} links to {link}"
                checked += 1
    assert checked > 500


@pytest.mark.slow
@needs_sphinx
def test_names_in_sentences_lead_to_the_reference(site):
    guide = page(site, "docs/guide")
    assert 'href="reference/freezing.html#finetune_tf.train_only"' in guide
    chinese = page(site, "docs/guide.zh-CN")
    assert 'href="reference/freezing.html#finetune_tf.train_only"' in chinese


@pytest.mark.slow
@needs_sphinx
def test_formulas_need_no_script(site):
    assert page(site, "docs/guide").count("<math") > 40
    assert "MathJax" not in page(site, "docs/guide")


QUERIES = """
const queries = ["学习率", "率", "冻结 encoder", "用AdamW训练", "freezing layers"];
console.log(JSON.stringify(queries.map((query) => {
  const stemmer = new Stemmer();
  return splitQuery(query).map((term) => stemmer.stemWord(term.toLowerCase()));
})));
"""


@pytest.mark.slow
@needs_sphinx
def test_what_a_reader_types_is_split_as_the_pages_were(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    index = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), index)
    index = index[index.index("terms:") if "terms:" in index else index.index('"terms":') :]
    expected = [["学习", "习率"], ["率"], ["冻结", "encod"], ["用", "adamw", "训练"]]
    expected += [["freez", "layer"]]
    for term in sum(expected, []):
        assert re.search(rf'[{{,]"?{term}"?:', index), term

    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        pytest.skip("node is not installed, so the JavaScript of the search was not run")
    code = (site / "_static" / "language_data.js").read_text(encoding="utf-8")
    code = f"globalThis.window = globalThis;\n{code}\n{QUERIES}"
    result = subprocess.run([node, "-e", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected
