"""Django settings.  What an administrator may change comes from the environment, see `config.py`."""

from __future__ import annotations

import environ
from cryptography.fernet import Fernet
from django.core.management.utils import get_random_secret_key

from volmig_site import config

BASE_DIR = config.BASE_DIR
VOLMIG_STATE_DIR = config.state_dir()
VOLMIG_HOST = config.host_name()

SECRET_KEY = config.read("VOLMIG_SECRET_KEY") or config.key_from_file("secret_key", get_random_secret_key)
VOLMIG_ENCRYPTION_KEYS = config.read_list("VOLMIG_ENCRYPTION_KEYS") or [
    config.key_from_file("encryption_key", lambda: Fernet.generate_key().decode())
]
DEBUG = config.read("VOLMIG_DEBUG")
ALLOWED_HOSTS = config.read_list("VOLMIG_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = config.read_list("VOLMIG_TRUSTED_ORIGINS")

VOLMIG_LEASE_SECONDS = config.read("VOLMIG_LEASE_SECONDS")
VOLMIG_SLICE_SECONDS = config.read("VOLMIG_SLICE_SECONDS")
VOLMIG_HANG_SECONDS = config.read("VOLMIG_HANG_SECONDS")
VOLMIG_IO_MAX_BYTES_PER_SECOND = config.read("VOLMIG_IO_MAX_BYTES_PER_SECOND")
VOLMIG_IO_PRIORITY = config.read("VOLMIG_IO_PRIORITY")
VOLMIG_CHECKPOINT_SECONDS = config.read("VOLMIG_CHECKPOINT_SECONDS")
VOLMIG_MAX_ATTEMPTS = config.read("VOLMIG_MAX_ATTEMPTS")
VOLMIG_RETRY_SECONDS = config.read("VOLMIG_RETRY_SECONDS")
VOLMIG_STORAGE_ADDRESS = config.read("VOLMIG_STORAGE_ADDRESS")
VOLMIG_STORAGE_PORTS = config.read_ports("VOLMIG_STORAGE_PORTS")
VOLMIG_EXPORT = config.read("VOLMIG_EXPORT")
VOLMIG_SILENCE_SECONDS = config.read("VOLMIG_SILENCE_SECONDS")
VOLMIG_RETENTION_HOURS = config.read("VOLMIG_RETENTION_HOURS")
VOLMIG_STALE_REPORT_SECONDS = config.read("VOLMIG_STALE_REPORT_SECONDS")
VOLMIG_MAX_OVER_SUBSCRIPTION_RATIO = config.read("VOLMIG_MAX_OVER_SUBSCRIPTION_RATIO")
VOLMIG_SCHEDULER_FILTERS = config.read_list("VOLMIG_SCHEDULER_FILTERS")

INSTALLED_APPS = [
    "volmig_site.admin_config.VolmigAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.forms",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "backends",
    "migrations_app",
    "volmig_site",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "volmig_site.urls"
WSGI_APPLICATION = "volmig_site.wsgi.application"
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
            ],
        },
    }
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

_DATABASE_URL = config.read("DATABASE_URL") or f"sqlite:///{VOLMIG_STATE_DIR / 'volmig.sqlite3'}"
_DATABASE = environ.Env.db_url_config(_DATABASE_URL)
if _DATABASE["ENGINE"] == "django.db.backends.sqlite3":
    # Immediate transactions wait for the lock instead of failing when a reader turns into a writer; with WAL
    # readers and the one writer do not block each other.
    _DATABASE["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
    # A worker's heartbeat has a connection of its own: the test database must be a file that both can open.
    _DATABASE["TEST"] = {"NAME": str(VOLMIG_STATE_DIR / "test.sqlite3")}
else:
    _DATABASE["CONN_MAX_AGE"] = 60
    _DATABASE["CONN_HEALTH_CHECKS"] = True
DATABASES = {"default": _DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    # Shared by the web server and the workers of one host: django-q2 keeps its statistics there.
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(VOLMIG_STATE_DIR / "cache"),
    }
}

Q_CLUSTER = {
    # `name` salts the signature of messages: equal on all hosts.  The queue is `cluster_name`: one per host.
    "name": "volmig",
    "cluster_name": VOLMIG_HOST,
    "ALT_CLUSTERS": {},
    "orm": "default",
    "workers": config.read("VOLMIG_WORKERS"),
    # A task works one slice and queues itself again, so no task comes near this.
    "timeout": 3600,
    "retry": 7200,
    # A failed delivery is not repeated by the queue: the sweep rings again for what is not finished.
    "max_attempts": 1,
    "ack_failures": True,
    "queue_limit": 1,
    "bulk": 1,
    "poll": 0.2,
    "guard_cycle": 0.5,
    "recycle": 100,
    "save_limit": 200,
    "catch_up": False,
    "label": "Queue",
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "migrations_app.api.pagination.NewestFirst",
    "PAGE_SIZE": 100,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "migrations_app.api.problems.as_problem",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "volmig",
    "DESCRIPTION": "Move volumes between storage backends.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "admin:login"

LANGUAGE_CODE = "en"
TIME_ZONE = config.read("VOLMIG_TIME_ZONE")
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VOLMIG_STATE_DIR / "static"
# The middleware warns at each start about a directory that is not there.
STATIC_ROOT.mkdir(exist_ok=True)
# Files are served from the packages themselves, so that no collectstatic is needed before the first start.
WHITENOISE_USE_FINDERS = True

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# A volume is chosen by checkbox on a page of many.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20_000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "backends": {"level": "INFO"},
        "migrations_app": {"level": "INFO"},
        "django-q": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
    },
}
