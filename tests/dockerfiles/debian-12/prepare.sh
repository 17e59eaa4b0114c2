#!/bin/sh
set -e
mkdir -p w/DEBIAN w/usr/bin w/etc/greeting
printf 'Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Us <us@example.org>\nDescription: greets\n' >w/DEBIAN/control
echo /etc/greeting/conf >w/DEBIAN/conffiles
printf '#!/bin/sh\nset -e\nmkdir -p /var/lib/greeting\nchown 33:33 /var/lib/greeting\n' >w/DEBIAN/postinst
printf '#!/bin/sh\ncat /etc/greeting/conf\n' >w/usr/bin/greeting
echo hello >w/etc/greeting/conf
chmod 755 w/DEBIAN/postinst w/usr/bin/greeting
find w -exec touch -d @1000000000 {} +
SOURCE_DATE_EPOCH=1000000000 dpkg-deb --root-owner-group -b w greeting.deb >/dev/null
rm -r w
