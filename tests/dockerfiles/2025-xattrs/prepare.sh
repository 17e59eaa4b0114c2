#!/bin/sh
set -e
mkdir w; echo x >w/x; setfattr -n user.note -v hello w/x
tar --numeric-owner --owner=0 --group=0 --mtime=@1 --xattrs -C w -cf with-xattr.tar x
rm -r w; echo l >local; setfattr -n user.local -v 1 local
