"""Texts on which reproductions of a tokenizer differ, if they differ at all."""

import unicodedata
from typing import Any

import numpy as np

_SEED = 0
_RANDOM = 300  # texts of each kind

_WRITTEN = [
    "",
    " ",
    "a",
    "A plain sentence, with a comma; and 'quotes' -- don't!",
    "e-mail: someone@example.org, http://example.org/a?b=c&d=e#f (50%) $5 £3 €2 100°",
    "naïve café résumé Ångström Dvořák Straße İstanbul ΣΊΣΥΦΟΣ σίσυφος ﬁ ǅ Ω K Å",
    "e\u0301 e\u0323\u0301 a\u0301\u0323 \u0344 \u0958 \u1e9b\u0323 \u01c5 \ufb01",
    "a\tb\nc\rd\u00a0e\u2003f\u3000g\u2028h\u2029i\u200bj\u200dk\ufeffl\u0000m\u0007n\u0085o",
    "\ufffd \ue000 \ufdd0 \ufdef \uffff \U0010ffff \U000e0041 \u00ad \u061c \u2066x\u2069",
    "东京 東京タワー 日本語 한국어 ภาษาไทย العربية עברית हिन्दी русский 𠀀𪛖 ㍿ ｆｕｌｌ ﾊﾝｶｸ",
    "emoji 🙂👍🏽👩‍👩‍👧‍👦🇩🇪 ☃️ ✓ → ½ ² ① Ⅷ",
    "[CLS] [SEP] [MASK] [PAD] [UNK] x[SEP]y [mask] [ MASK ] [[MASK]] <s></s><mask> ##ing un##able",
    "x" * 99 + " " + "x" * 100 + " " + "x" * 101 + " " + "é" * 60 + " " + "é" * 101,
    "\u302e\u302f \U0001d165\U0001d16e a\u302e\u0301",
    "don't" * 30,
    "word " * 1200,
]


def hard_texts(tokenizer: Any) -> list[str]:
    """Returns difficult texts for a tokenizer, always the same ones.

    They contain accents, controls, symbols, many scripts, all added tokens in and between words,
    very long words and texts, random characters, and random joins of pieces of the vocabulary.

    Args:
        tokenizer: A tokenizer of transformers.

    Example:
        >>> from finetune_tf.model.exports.hard_texts import hard_texts
        >>> len(hard_texts(model.tokenizer)) > 500
        True
    """
    generator = np.random.default_rng(_SEED)
    characters = [
        chr(number)
        for number in generator.integers(0, 0x32000, 40 * _RANDOM)
        if unicodedata.category(chr(number)) not in ("Cn", "Cs", "Co")
    ]
    some = [
        "".join(generator.choice(characters, 12)) + " " + "".join(generator.choice(characters, 3))
        for _ in range(_RANDOM)
    ]
    vocabulary = sorted(tokenizer.get_vocab())
    pieces = [
        "".join(
            generator.choice(vocabulary) + generator.choice(["", "", " ", ", ", "."])
            for _ in range(12)
        )
        for _ in range(_RANDOM)
    ]
    # Those that a vocabulary has besides its pieces, too: `all_special_tokens` lacks most of them.
    names = [token.content for token in tokenizer.added_tokens_decoder.values()]
    added = [f"a{name}b {name} {name.upper()}{name}" for name in names]
    return [*_WRITTEN, *added, *some, *pieces, *(piece.replace("##", "") for piece in pieces)]
