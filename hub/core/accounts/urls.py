"""Pages of one's own account.

Only what a closed hub needs: accounts are made by administrators and there is no mail to prove anybody by, so
signing up, addresses to confirm and passwords reset by mail are not offered. An administrator sets a new password.
"""

from allauth.account import views
from django.urls import include, path

urlpatterns = [
    path("login/", views.login, name="account_login"),
    path("logout/", views.logout, name="account_logout"),
    path("inactive/", views.account_inactive, name="account_inactive"),
    path("reauthenticate/", views.reauthenticate, name="account_reauthenticate"),
    path("password/change/", views.password_change, name="account_change_password"),
    path("2fa/", include("allauth.mfa.urls")),
]
