"""Login and logout by API: a token against username, password and, where switched on, a one-time code."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import authenticate
from django.db import transaction
from drf_spectacular.utils import extend_schema
from knox.models import AuthToken
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hub.core.accounts.second_factor import has_second_factor, second_factor_matches
from hub.core.api.permissions import LoggedIn
from hub.core.audit.services import record
from hub.core.errors import HubError


class LoginRefused(HubError):
    code = "login_refused"
    title = "The login was refused"
    http_status = 401


class LoginSerializer(serializers.Serializer):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=500, trim_whitespace=False)
    otp = serializers.CharField(max_length=40, required=False, allow_blank=True)


class TokenSerializer(serializers.Serializer):
    token = serializers.CharField()
    expiry = serializers.DateTimeField(allow_null=True)


class MeSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    username = serializers.CharField()
    full_name = serializers.CharField()
    is_superuser = serializers.BooleanField()


class LoginView(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(request=LoginSerializer, responses=TokenSerializer, auth=[])
    def post(self, request: Request) -> Response:
        """Exchange credentials for a token."""
        given = LoginSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        data = given.validated_data
        user = authenticate(request._request, username=data["username"], password=data["password"])
        if getattr(request._request, "axes_locked_out", False):
            raise _locked_out()
        if user is None:
            record(actor=None, action="login.failed", object_type="core.user", object_id="")
            raise LoginRefused(
                "The user name or the password is not right. Five failures lock the account for 15 minutes."
            )
        if has_second_factor(user) and not second_factor_matches(user, data.get("otp", "")):
            record(actor=user, action="login.failed", obj=user, reason="one-time code")
            raise LoginRefused("This account needs a one-time code: send it as “otp”.", code="otp_required")
        with transaction.atomic():
            row, token = AuthToken.objects.create(user)
            record(actor=user, action="login.succeeded", obj=user, new={"via": "token"})
        return Response({"token": token, "expiry": row.expiry})


def _locked_out() -> HubError:
    error = HubError(
        "This account is locked after five failed logins. Wait 15 minutes, or ask the administrator."
    )
    error.code, error.title, error.http_status = "locked_out", "Too many failed logins", 429
    return error


class LogoutView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """End the token that this request carries."""
        token: Any = request.auth
        if token is not None:
            with transaction.atomic():
                token.delete()
                record(actor=request.user, action="logout", obj=request.user)
        return Response(status=204)


class MeView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        """Say who the token belongs to."""
        return Response(MeSerializer(request.user).data)
