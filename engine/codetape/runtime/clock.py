"""The time of this machine."""

import time
from datetime import UTC, datetime


class SystemClock:
    """The time of this machine."""

    def now(self) -> str:
        """Return the time of day in UTC, with milliseconds."""
        return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed point."""
        return time.monotonic_ns() // 1_000_000
