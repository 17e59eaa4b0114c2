#!/bin/sh
set -e
for n in a b c d; do mkdir w; echo $n >w/$n; chmod 640 w/$n; mkdir -m 711 w/dir; case $n in a) f=a.tar; z=;; b) f=b.tar.gz; z=z;; c) f=c.tar.bz2; z=j;; d) f=d.tar.xz; z=J;; esac; tar --numeric-owner --owner=3 --group=4 --sort=name --mtime=@1 -C w -c${z}f $f $n dir; rm -r w; done
