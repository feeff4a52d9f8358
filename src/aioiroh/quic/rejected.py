"""What a stream talks to after the peer rejected the early data it belonged to.

Stream ids begin anew then, so the ids that early streams hold may name other streams soon. Such a stream
gets this in place of its connection, which costs the streams that were not early nothing.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

from aioiroh import _native

__all__ = ["REJECTED", "EarlyDataRejected"]


class EarlyDataRejected(_native.NativeError):
    """What every call on such a stream raises."""


class _Rejected:
    """Refuses everything that can be asked of a stream."""

    def __getattr__(self, name: str) -> Any:
        return self._refuse

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise EarlyDataRejected


REJECTED = cast(_native.Conn, _Rejected())
