"""The one failure of reading pixels: it carries a code for programs and a sentence for people."""

from __future__ import annotations

from hub.core.errors import HubError


class PixelsUnavailable(HubError):
    """The pixels of a series cannot be used, so no metric may be reported for it.

    `code` is one of: no_instances, unreadable, no_pixel_data, truncated, wrong_length, unsupported_pixels,
    unsupported_transfer_syntax, too_large, undecodable, decode_timeout, mixed_matrix, mixed_modality,
    bad_rescale, bad_geometry.
    """

    title = "The pixels of this series cannot be used"
    http_status = 422

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code)

    def __reduce__(self) -> tuple[type[PixelsUnavailable], tuple[str, str]]:
        return (PixelsUnavailable, (self.code, self.detail))
