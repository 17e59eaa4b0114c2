#!/bin/sh
set -e
chown -R redis .
exec "$@"
