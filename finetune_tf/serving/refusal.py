"""Requests that are refused: an HTTP status, and what was expected and found."""

from collections.abc import Mapping

from finetune_tf.messages import printable


class Refusal(Exception):
    """A request that gets an error as its answer.

    Args:
        status: The HTTP status, such as 400 or 413.
        message: What was expected, what was found, and what to do.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})

    def __str__(self) -> str:
        """Returns the message with control characters escaped, since it may quote the request."""
        return printable(super().__str__())
