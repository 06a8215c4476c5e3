"""Where a text ends: at certain tokens, or as soon as it contains a stop string.

A stop string may be split across tokens in any way, and may end inside a token. Tokens are
therefore read byte by byte by the automaton of Aho and Corasick (1975, "Efficient String
Matching"), whose transitions over complete tokens are computed once, so that a step of the graph is
one lookup.

Shape legend: B texts, V tokens of the vocabulary, S states of the automaton.
"""

import hashlib
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops

_PREFIX = "abcdef"  # the text before a token when its own text is determined


@dataclass(frozen=True)
class StopStrings:
    """An automaton that finds stop strings in token ids.

    Attributes:
        texts: The stop strings.
        digest: A hash of the table: equal strings of different tokenizers are not equal.
        table: (S, V) int32, for a state and a token twice the next state, plus 1 if a stop string
            ends in the token. State 0 is the first one.
    """

    texts: tuple[str, ...]
    digest: str
    table: np.ndarray = field(compare=False, repr=False)


@dataclass(frozen=True)
class Ends:
    """What ends a text.

    Attributes:
        tokens: Token ids that end a text and do not belong to it.
        stops: Stop strings, which belong to the text that they end; None for no such strings.
    """

    tokens: tuple[int, ...] = ()
    stops: StopStrings | None = None

    def states(self, ids: Any, mask: Any) -> Any:
        """Returns the states of the automaton after prompts.

        Args:
            ids: (B, K) int32.
            mask: (B, K), 1 for real tokens.

        Returns:
            (B,) int32.
        """
        first = ops.zeros_like(ids[:, 0])
        if self.stops is None:
            return first

        def read(place: Any, states: Any) -> Any:
            token, is_real = ops.take(ids, place, axis=1), ops.take(mask, place, axis=1) > 0
            return ops.where(is_real, self.after(states, token)[0], states)

        return ops.fori_loop(0, ops.shape(ids)[1], read, first)

    def after(self, states: Any, tokens: Any) -> tuple[Any, Any]:
        """Returns the next states, and whether the texts end with these tokens.

        Args:
            states: The states before; any shape.
            tokens: int32, the tokens that follow.

        Returns:
            int32 and bool, in the same shape.
        """
        is_end = ops.zeros_like(tokens, "bool")
        for token in self.tokens:
            is_end |= ops.equal(tokens, token)
        if self.stops is None:
            return states, is_end
        table = self.stops.table
        found = ops.take(table.reshape(-1), states * table.shape[1] + tokens)
        return found // 2, is_end | (found % 2 > 0)

    def cut(self, prompt: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns the tokens of a text: up to a stop string, and before a token that ends it.

        Args:
            prompt: (tokens,), what the text continues.
            row: (tokens,), the generated tokens with anything behind the end.
        """
        state, table = 0, None if self.stops is None else self.stops.table
        for token in prompt.tolist() if table is not None else ():
            state = table[state, token] // 2
        for i, token in enumerate(row.tolist()):
            if token in self.tokens:
                return row[:i]
            if table is not None:
                state, is_end = divmod(table[state, token], 2)
                if is_end:
                    return row[: i + 1]
        return row


def compiled(texts: tuple[str, ...], tokenizer: Any, vocab_size: int) -> StopStrings:
    """Returns the automaton of stop strings.

    Args:
        texts: The stop strings, none of them empty.
        tokenizer: A fast tokenizer.
        vocab_size: Number of tokens of the model. Tokens that the tokenizer does not know have no
            text.

    Example:
        >>> from finetune_tf.generation.ends import Ends, compiled
        >>> tokenizer = ft.load(decoder).tokenizer
        >>> ends = Ends(stops=compiled(("y g",), tokenizer, len(tokenizer)))
        >>> row = np.array(tokenizer("a very good film")["input_ids"])
        >>> tokenizer.decode(ends.cut(row[:1], row[1:]))
        'very good'
    """
    nodes, is_final = _automaton([text.encode() for text in texts])
    tokens = _token_bytes(tokenizer, vocab_size)
    order = np.array(sorted(range(vocab_size), key=lambda token: -len(tokens[token])))
    lengths = np.array([len(tokens[token]) for token in order])
    states = np.repeat(np.arange(len(nodes), dtype="int32")[:, None], vocab_size, axis=1)
    is_end = np.zeros_like(states, "bool")
    for place in range(lengths.max(initial=0)):
        count = np.searchsorted(-lengths, -place)  # so many tokens have a byte at this place
        read = np.array([tokens[token][place] for token in order[:count]])
        states[:, :count] = nodes[states[:, :count], read]
        is_end[:, :count] |= is_final[states[:, :count]]
    table = np.empty_like(states)
    table[:, order] = 2 * states + is_end
    return StopStrings(texts, hashlib.sha256(table.tobytes()).hexdigest(), table)


def _automaton(strings: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the next state (S, 256) after each byte, and in which states (S,) a string ends."""
    children: list[dict[int, int]] = [{}]
    finals = set()
    for string in strings:
        node = 0
        for byte in string:
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
            node = children[node][byte]
        finals.add(node)
    following = np.zeros((len(children), 256), "int32")
    is_final = np.isin(np.arange(len(children)), list(finals))
    longest_suffix = np.zeros(len(children), "int32")
    waiting = deque([0])
    while waiting:  # breadth first, so that shorter suffixes are complete
        node = waiting.popleft()
        suffix = longest_suffix[node]
        is_final[node] |= is_final[suffix]
        following[node] = following[suffix] if node else 0
        for byte, child in children[node].items():
            longest_suffix[child] = following[suffix, byte] if node else 0
            following[node, byte] = child
            waiting.append(child)
    return following, is_final


def _token_bytes(tokenizer: Any, vocab_size: int) -> list[bytes]:
    """Returns the bytes of each token, as they stand in the middle of a text."""
    kinds = _kinds(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])
    of_character = _byte_level() if "ByteLevel" in kinds else {}
    ids = tokenizer(_PREFIX, add_special_tokens=False)["input_ids"]
    before = tokenizer.convert_ids_to_tokens(ids)
    start = len(tokenizer.convert_tokens_to_string(before))
    found = [b""] * vocab_size
    for token, place in tokenizer.get_vocab().items():
        if place >= vocab_size:
            continue
        if of_character and all(character in of_character for character in token):
            found[place] = bytes(of_character[character] for character in token)
        elif "ByteFallback" in kinds and is_byte(token):
            found[place] = bytes([int(token[3:5], 16)])
        else:
            found[place] = tokenizer.convert_tokens_to_string([*before, token])[start:].encode()
    return found


def is_byte(token: str) -> bool:
    """Returns whether a token stands for one byte, as in tokenizers that fall back to bytes.

    Example:
        >>> from finetune_tf.generation.ends import is_byte
        >>> is_byte("<0xE2>"), is_byte("<s>")
        (True, False)
    """
    digits = set("0123456789ABCDEFabcdef")
    return len(token) == 6 and token[:3] + token[5:] == "<0x>" and set(token[3:5]) <= digits


def _kinds(decoder: Any) -> set[str]:
    """Returns the types of a decoder in a tokenizer.json and of those inside it."""
    if isinstance(decoder, list):
        return set().union(*map(_kinds, decoder))
    if not isinstance(decoder, dict):
        return set()
    return {decoder.get("type")} | _kinds(list(decoder.values()))


def _byte_level() -> dict[str, int]:
    """Returns the byte for each character of byte-level vocabularies, as of GPT-2.

    Printable characters of Latin-1 stand for themselves, and the other bytes for the characters
    from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }
