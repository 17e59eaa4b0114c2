#!/bin/sh
set -e
mkdir -p w/app/bin w/app/empty
echo x >w/app/bin/tool
chmod 4755 w/app/bin/tool
echo y >w/app/conf
chmod 600 w/app/conf
ln -s bin/tool w/app/link
ln w/app/conf w/app/hard
tar --numeric-owner --owner=7 --group=8 --mtime=@1 --sort=name -C w -czf app.tar.gz app
rm -r w
