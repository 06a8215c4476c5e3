"""The address on which a server listens, and why it may not."""

import errno
import os
import socket

from finetune_tf.errors import ArgumentError

BACKLOG = 2048  # connections that wait to be accepted


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that has the port, but does not listen yet: loading takes a while.

    Args:
        host: An address or a name of this machine.
        port: The port; 0 for any free one.

    Raises:
        ArgumentError: If there is no such address, or the port is taken or not permitted.

    Example:
        >>> from finetune_tf.serving.address import bound, url_of
        >>> with bound("127.0.0.1", 0) as listener:
        ...     url_of(listener)
        'http://127.0.0.1:...'
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ArgumentError(
            "host must be an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of "
            f"them; found {host!r}."
        ) from None
    listener = socket.socket(family, kind)
    try:
        if os.name == "posix":  # elsewhere the option lets two processes have the port
            # Connections of a server that has just stopped do not keep the port from the next one.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port) from None
    return listener


def listen(listener: socket.socket) -> None:
    """Lets a socket listen: connections wait from now on until they are accepted.

    Raises:
        ArgumentError: If another process that had the port too listens already.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _explained(error, *listener.getsockname()[:2]) from None


def url_of(listener: socket.socket) -> str:
    """Returns the address of a socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explained(error: OSError, host: str, port: int) -> ArgumentError:
    reasons = {
        errno.EADDRINUSE: f"The port {port} of {host} is taken by another process. Stop it, or "
        "choose another port; 0 is any free one.",
        errno.EACCES: f"The port {port} needs the rights of an administrator. Choose one from 1024 "
        "on.",
        errno.EADDRNOTAVAIL: f"The address {host} does not belong to this machine. Choose "
        "127.0.0.1, or 0.0.0.0 for all of its addresses.",
    }
    return ArgumentError(reasons.get(error.errno, f"{host}:{port} cannot be used: {error}."))
