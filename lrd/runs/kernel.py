"""The kernel of a notebook that the library executes."""

from jupyter_client.manager import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """One that is not interrupted when it is shut down.

    The library sends SIGINT first. A kernel that is still at the end of its last request takes that for a Ctrl-C and
    reports an error. One that goes on in spite of the request to shut down is sent SIGTERM a few seconds later.
    """

    async def _async_interrupt_kernel(self) -> None:
        if not self.shutting_down:
            await super()._async_interrupt_kernel()
