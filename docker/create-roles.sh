#!/bin/sh
# Runs once, when the database's volume is empty: the schema's owner, the application's role (which owns
# nothing), and the database.
set -eu
psql -v ON_ERROR_STOP=1 -v owner_password="$HUB_DB_OWNER_PASSWORD" -v app_password="$HUB_DB_APP_PASSWORD" \
    --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE hub_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE hub_app LOGIN PASSWORD :'app_password';
CREATE DATABASE hub OWNER hub_owner;
SQL
