#!/bin/sh
set -e
mkdir files
for m in 400 644 755 1755 2755 4755 6711 000; do echo $m >files/m$m; chmod $m files/m$m; done
echo s >files/suid; chmod 4755 files/suid
mkdir -m 700 files/private; mkdir -m 3775 files/shared; echo x >files/private/x
