"""The kernel of a notebook that the library executes, a cell's as well as a page's. Torch-free."""

import contextlib
import tempfile
from collections.abc import Iterator

from jupyter_client.manager import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """One that is not interrupted when it is shut down.

    The library sends SIGINT first. A kernel that is still at the end of its last request takes that for a Ctrl-C and
    reports an error. One that goes on in spite of the request to shut down is sent SIGTERM a few seconds later.
    """

    async def _async_interrupt_kernel(self) -> None:
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


@contextlib.contextmanager
def sockets() -> Iterator[str]:
    """The `ip` of a kernel whose transport is `ipc`: sockets in a directory of their own, which goes afterwards."""
    where = "/tmp" if len(tempfile.gettempdir()) > 80 else None  # a socket's path takes some hundred characters
    with tempfile.TemporaryDirectory(prefix="lrd-", dir=where, ignore_cleanup_errors=True) as folder:
        yield f"{folder}/kernel"
