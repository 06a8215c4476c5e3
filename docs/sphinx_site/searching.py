"""Search in English and Chinese.

Chinese has no spaces between words. Sphinx's own Chinese search takes them from a dictionary, in
the index only, and does not split what the reader types. Here, pairs of neighboring characters are
the terms on both sides, so that each part of a sentence is found, and no dictionary is needed.
"""

import re

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_RUNS = re.compile(rf"[{HAN}]+|[^\W{HAN}]+")


class SearchEnglishAndChinese(SearchEnglish):
    """Words of English, and one or two neighboring characters of Chinese."""

    lang = "en+zh"
    language_name = "English"  # names the class of the stemmer in JavaScript
    # The same for what the reader types; single characters only if there is no neighbor.
    js_splitter_code = rf"""
function splitQuery(query) {{
  const terms = [];
  for (const run of query.match(/[{HAN}]+|[\p{{L}}\p{{N}}_]+/gu) || []) {{
    const parts = run.split(/([{HAN}]+)/).filter((part) => part);
    for (const part of parts) {{
      if (!/[{HAN}]/.test(part) || part.length === 1) terms.push(part);
      else for (let i = 0; i + 1 < part.length; i++) terms.push(part.slice(i, i + 2));
    }}
  }}
  return terms;
}}
"""

    def split(self, input: str) -> list[str]:
        """Returns the terms of a text."""
        terms = []
        for run in _RUNS.findall(input):
            if re.match(f"[{HAN}]", run):
                terms += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
            else:
                terms.append(run)
        return terms


def setup(app: Sphinx) -> None:
    """Adds the search language "en+zh"."""
    app.add_search_language(SearchEnglishAndChinese)
