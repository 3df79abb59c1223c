"""Settings shared by every environment; values that differ come from HUB_* variables."""

from pathlib import Path

import environ
from django.urls import reverse_lazy
from whitenoise.compress import Compressor

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent.parent
VERSION = "0.1.0"

SECRET_KEY = env("HUB_SECRET_KEY", default="")
# Keys the pseudonyms (UID map, date offsets) of every trial; losing it breaks the link between visits.
HUB_PSEUDONYM_KEY = env("HUB_PSEUDONYM_KEY", default="")
# Seed (64 hexadecimal digits) of the Ed25519 key that signs receipts and audit anchors.
HUB_SIGNING_KEY = env("HUB_SIGNING_KEY", default="")
HUB_BASE_URL = env("HUB_BASE_URL", default="http://127.0.0.1:8000")
ALLOWED_HOSTS = env.list("HUB_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("HUB_CSRF_TRUSTED_ORIGINS", default=[])
DEBUG = False

INSTALLED_APPS = [
    "hub",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "axes",
    "csp",
    "pgtrigger",
    "rest_framework",
    "knox",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "hub.core",
    "sites_app",
    "qc_app",
    "harmonization_app",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "hub.core.api.request_context.RequestContextMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "hub.core.accounts.idle.IdleTimeoutMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "hub.core.api.pages.PageErrorMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "hub.urls"
ASGI_APPLICATION = "hub.asgi.application"
WSGI_APPLICATION = "hub.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "sites_app.views.context.navigation",
            ],
        },
    }
]

DATABASES = {
    "default": env.db_url("HUB_DATABASE_URL", default="postgres://hub_app@127.0.0.1/hub")
    | {"CONN_MAX_AGE": 300, "CONN_HEALTH_CHECKS": True, "ATOMIC_REQUESTS": False}
}
HUB_OWNER_DATABASE_URL = env("HUB_OWNER_DATABASE_URL", default="")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "core.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = reverse_lazy("account_login")
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_ADAPTER = "hub.core.accounts.adapter.ClosedAccountAdapter"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
# django-axes owns the lockout of passwords; this limit is for one-time codes (see ClosedAccountAdapter).
ACCOUNT_RATE_LIMITS = {"login_failed": "5/15m/key"}
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Imaging data hub"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "hub.core.accounts.lockout.refuse_locked_out"
AXES_VERBOSE = False
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = True
HUB_IDLE_TIMEOUT_S = env.int("HUB_IDLE_TIMEOUT_S", default=1800)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["hub.core.api.permissions.DenyByDefault"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "hub.core.api.pagination.KeysetPagination",
    "DEFAULT_FILTER_BACKENDS": [
        "hub.core.api.filters.StrictFilterBackend",
        "hub.core.api.filters.StableOrderingFilter",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "hub.core.api.problems.problem_response",
    "PAGE_SIZE": 50,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
REST_KNOX = {
    "TOKEN_TTL": None,
    "AUTO_REFRESH": False,
    "TOKEN_LIMIT_PER_USER": None,
    "AUTH_HEADER_PREFIX": "Token",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Imaging data hub",
    "DESCRIPTION": "Receive, check, harmonize and lock the images of a multi-site clinical trial.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    # The same word names the states of different things: each gets a name of its own in the document.
    "ENUM_NAME_OVERRIDES": {
        "JobStateEnum": "hub.core.jobs.models.JobState",
        "SubmissionStateEnum": "sites_app.models.submission.SubmissionState",
        "SeriesStateEnum": "sites_app.models.series.SeriesState",
        "LockStateEnum": "sites_app.models.trial.LockState",
        "VersionStateEnum": "qc_app.models.protocol.VersionState",
        "DeviationStateEnum": "qc_app.models.deviation.DeviationState",
        "QueryStateEnum": "qc_app.models.deviation.QueryState",
        "MonitoringStateEnum": "qc_app.models.monitoring.ChangeEvent.State",
        "AlgorithmVersionStateEnum": "harmonization_app.models.algorithm.AlgorithmVersionState",
        "RunStateEnum": "harmonization_app.models.plan.RunState",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "hub.core.api.openapi.document_problems",
    ],
}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "/static/"
STATIC_ROOT = Path(env("HUB_STATIC_ROOT", default=str(BASE_DIR / "staticfiles")))
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "hub.core.storage.static.HubStaticFilesStorage"},
}

# Source maps are read by developers' tools alone, and to compress them took half of the time of gathering.
WHITENOISE_SKIP_COMPRESS_EXTENSIONS = (*Compressor.SKIP_COMPRESS_EXTENSIONS, "map")

HUB_STORAGE_ROOT = Path(env("HUB_STORAGE_ROOT", default=str(BASE_DIR / "var" / "data")))
HUB_ANCHOR_FILE = Path(env("HUB_ANCHOR_FILE", default=str(BASE_DIR / "var" / "anchor" / "anchors.jsonl")))
# Uploads are refused when less than this share of the disk is free.
HUB_FREE_SPACE_FLOOR = env.float("HUB_FREE_SPACE_FLOOR", default=0.05)
HUB_UPLOAD_LIMIT_BYTES = env.int("HUB_UPLOAD_LIMIT_BYTES", default=4 * 1024**3)
# A CSV of measurements is read into memory; wider tables come as a matrix, which is read by pieces.
HUB_TABLE_LIMIT_BYTES = env.int("HUB_TABLE_LIMIT_BYTES", default=512 * 1024**2)
# A harmonization run that would need more is refused before it starts.
HUB_RUN_MEMORY_LIMIT_MB = env.int("HUB_RUN_MEMORY_LIMIT_MB", default=4096)
# From so many cells on ComBat goes by blocks of features, which so many further workers are asked to take.
HUB_RUN_BLOCK_CELLS = env.int("HUB_RUN_BLOCK_CELLS", default=20_000_000)
HUB_RUN_HELPERS = env.int("HUB_RUN_HELPERS", default=3)
HUB_REQUEST_LIMIT_BYTES = env.int("HUB_REQUEST_LIMIT_BYTES", default=16 * 1024**2)
FILE_UPLOAD_TEMP_DIR = env("HUB_UPLOAD_TEMP_DIR", default=None)
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024**2

REDIS_URL = env("HUB_REDIS_URL", default="redis://127.0.0.1:6379/0")
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://")
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 7200,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_keepalive": True,
    "socket_connect_timeout": 3,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_TASK_DEFAULT_QUEUE = "control"
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "hub.sweep", "schedule": 4.0, "options": {"queue": "control", "expires": 4}},
    "anchor": {
        "task": "hub.anchor_audit",
        "schedule": 300.0,
        "options": {"queue": "control", "expires": 300},
    },
}
CELERY_BEAT_SCHEDULE_FILENAME = env("HUB_BEAT_SCHEDULE_FILE", default="celerybeat-schedule")
CELERY_BEAT_MAX_LOOP_INTERVAL = 2

CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:", "blob:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SILENCED_SYSTEM_CHECKS: list[str] = []

from hub.settings.logging import LOGGING, configure_structlog  # noqa: E402, F401

configure_structlog()
