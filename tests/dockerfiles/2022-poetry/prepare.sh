#!/bin/sh
set -e
mkdir -p wheels w/pkg
echo 'x = 1' >w/pkg/__init__.py
touch -d @1000000000 w/pkg/__init__.py
find w -exec touch -d @1000000000 {} +
TZ=UTC python3 -m zipfile -c wheels/pkg-1.0-py3-none-any.whl w/pkg
rm -r w
