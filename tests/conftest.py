"""What every ring shares."""

from __future__ import annotations

import asyncio

# Asking the policy for a loop before any test made one would create a loop that nobody closes:
# pytest-asyncio asks, and the warning about it would fail the run.
asyncio.set_event_loop(None)
