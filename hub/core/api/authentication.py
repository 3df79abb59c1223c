"""Tokens: `Authorization: Token <token>`, stored as digests."""

from knox.auth import TokenAuthentication


class HubTokenAuthentication(TokenAuthentication):
    """knox's token authentication; an inactive user's token is refused by it as well."""
