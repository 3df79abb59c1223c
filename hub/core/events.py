"""Domain events: a lower layer says what happened, an upper one subscribes in AppConfig.ready().

Handlers run inside the publisher's transaction. The jobs they enqueue are rows of that transaction, so a
crash between commit and delivery loses nothing: the event and what follows from it commit together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

_handlers: dict[type, list[Callable[[Any], None]]] = defaultdict(list)


def subscribe(event_type: type, handler: Callable[[Any], None]) -> None:
    """Call `handler(event)` for each published event of `event_type`; subscribing twice has no effect."""
    if handler not in _handlers[event_type]:
        _handlers[event_type].append(handler)


def publish(event: Any) -> None:
    """Hand `event` (a frozen dataclass of ids) to its subscribers, in the order they subscribed."""
    for handler in _handlers[type(event)]:
        handler(event)
