"""How the C library treats large buffers.

A training step takes and gives back hundreds of arrays of megabytes. By default, glibc fetches each
from the operating system and returns it there, and the system clears every page before it hands it
out again: a third of the time of a step on a CPU goes into that. Kept, buffers are simply used
again.
"""

import ctypes
import functools
import os
import sys

# Numbers of `mallopt` in malloc.h, and from where on a buffer is fetched and returned.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE, _PAD = 1 << 30, 1 << 27  # bytes


@functools.cache
def keep_buffers() -> bool:
    """Lets this process keep freed buffers for the next step; returns whether it does.

    Only where the C library is glibc. The environment variable FINETUNE_TF_KEEP_BUFFERS=0 leaves
    things as they are. What is kept shows as memory of the process until it ends.
    """
    if os.environ.get("FINETUNE_TF_KEEP_BUFFERS") == "0" or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, _PAD))
    return all(library.mallopt(*setting) for setting in settings)
