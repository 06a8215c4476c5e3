"""What a request may have: bytes, texts, characters and tokens, and how long its body may take."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from finetune_tf.serving.refusal import Refusal

# A client that has not sent everything does not read the answer, and would see a broken connection
# if this one were closed at once. The rest of a body is therefore read and thrown away, up to this
# multiple of what is allowed.
_DISCARDED = 4


@dataclass(frozen=True)
class Limits:
    """The limits of a request.

    Attributes:
        max_body_bytes: Bytes of a body.
        max_texts: Rows of a request: texts, pairs, questions or images.
        max_characters: Characters of one text.
        max_length: Tokens of one text; None for as many as the model accepts.
        body_seconds: Seconds in which a body must arrive.
    """

    max_body_bytes: int = 4_194_304
    max_texts: int = 128
    max_characters: int = 100_000
    max_length: int | None = None
    body_seconds: float = 30.0


async def read_body(
    chunks: AsyncIterator[bytes], headers: Mapping[str, str], limits: Limits
) -> bytes:
    """Returns the body of a request.

    Args:
        chunks: The pieces of the body as they arrive.
        headers: The headers of the request, by lower-case names.
        limits: The limits.

    Raises:
        Refusal: If the body is compressed, too large, or not complete in time.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Refusal(
            415,
            f"The body must not be compressed, found Content-Encoding: {encoding[:40]}. Send the "
            "JSON as it is.",
        )
    announced, size, kept = headers.get("content-length"), 0, []
    most = limits.max_body_bytes
    is_too_large = announced is not None and int(announced) > most
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in chunks:
                size += len(chunk)
                is_too_large = is_too_large or size > most
                if not is_too_large:
                    kept.append(chunk)
                elif size > _DISCARDED * most:
                    break
    except TimeoutError:
        if not is_too_large:
            raise Refusal(
                408,
                f"The body must arrive within {limits.body_seconds:g} seconds; {size:,} bytes did. "
                "Send smaller requests.",
                {"Connection": "close"},
            ) from None
    if is_too_large:
        found = "more" if announced is None else f"{int(announced):,}"
        raise Refusal(
            413,
            f"The body may have {most:,} bytes, found {found}. Send fewer texts in each request, "
            "or start the server with a larger --max-body-bytes.",
            {"Connection": "close"},
        )
    return b"".join(kept)
