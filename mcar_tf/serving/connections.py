"""Close connections whose client sends no request, or a request's headers too slowly."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """One client's connection.

    uvicorn limits the number of connections, but not how long one may take to send its headers: silent clients could
    keep all others out. So a connection that has no request at hand is closed after one to two times `patience`.
    """

    patience = 15.0  # seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.loop.call_later(self.patience, self._close_if_idle, None)

    def _close_if_idle(self, last: object) -> None:
        """Close the connection if there has been no request since `last`, the latest at the previous call."""
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is last:
            self.transport.close()
        else:
            self.loop.call_later(self.patience, self._close_if_idle, self.cycle if idle else self)
