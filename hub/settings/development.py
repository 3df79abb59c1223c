"""One laptop: `make demo` and `make serve`. The launcher supplies every HUB_* variable."""

from hub.settings.base import *  # noqa: F403
from hub.settings.base import HUB_PSEUDONYM_KEY, HUB_SIGNING_KEY, SECRET_KEY

SECRET_KEY = SECRET_KEY or "development-only"
HUB_PSEUDONYM_KEY = HUB_PSEUDONYM_KEY or "development-only"
HUB_SIGNING_KEY = HUB_SIGNING_KEY or "00" * 32
