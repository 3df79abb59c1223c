"""Login and logout by API: a token against username, password and, where switched on, a one-time code."""

from __future__ import annotations

from typing import Any, NoReturn

from django.contrib.auth import authenticate, logout
from django.db import transaction
from drf_spectacular.utils import extend_schema
from knox.models import AuthToken
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hub.core.accounts.lockout import LockedOut, count_failure, forget_failures, record_failed_login
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
            raise LockedOut()
        if user is None:
            record_failed_login(data["username"])
            raise LoginRefused(
                "The user name or the password is not right. Five failures lock the account for 15 minutes."
            )
        if has_second_factor(user) and not second_factor_matches(user, data.get("otp", "")):
            self._refuse_code(request, user, data.get("otp", ""))
        forget_failures(request._request, user.get_username())
        with transaction.atomic():
            row, token = AuthToken.objects.create(user)
            record(actor=user, action="login.succeeded", obj=user, new={"via": "token"})
        return Response({"token": token, "expiry": row.expiry})

    def _refuse_code(self, request: Request, user: Any, otp: str) -> NoReturn:
        """Raise LoginRefused; a wrong code counts towards the lockout, a missing one is asked for."""
        if not otp:
            raise LoginRefused("This account needs a one-time code: send it as “otp”.", code="otp_required")
        record_failed_login(user.get_username(), reason="one-time code")
        count_failure(request._request, user.get_username())
        raise LoginRefused(
            "The one-time code is not right. Send the one that is shown now.", code="otp_wrong"
        )


class LogoutView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """End the token that this request carries, or the session that it belongs to."""
        token: Any = request.auth
        with transaction.atomic():
            record(actor=request.user, action="logout", obj=request.user)
            if token is not None:
                token.delete()
            else:
                logout(request._request)
        return Response(status=204)


class MeView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        """Say who the token belongs to."""
        return Response(MeSerializer(request.user).data)
