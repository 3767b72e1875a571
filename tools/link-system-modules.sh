#!/bin/sh
# link-system-modules.sh DIR: make Debian's libnbd module visible in the virtual environment DIR.
#
# libnbd is not on PyPI.  Only its two files are linked, into a directory of their own: the rest of dist-packages
# must not shadow the pinned packages.  A missing module is no error: what needs NBD says so when it is used.
set -eu
venv=$1
system=${DIST_PACKAGES:-/usr/lib/python3/dist-packages}
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
suffix=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
links=$site/volmig-system-modules

# Left alone when it works: another process may be importing it right now.
if [ "$(readlink "$links/libnbdmod$suffix" 2>/dev/null)" = "$system/libnbdmod$suffix" ] &&
    "$venv/bin/python" -c 'import nbd; nbd.NBD()' 2>/dev/null; then
    exit 0
fi
rm -rf "$links" "$site/volmig-system-modules.pth"
if [ ! -e "$system/nbd.py" ] || [ ! -e "$system/libnbdmod$suffix" ]; then
    echo "No libnbd for this Python ($suffix): NBD is not available. On Debian: apt-get install python3-libnbd"
    exit 0
fi
mkdir "$links"
ln -s "$system/nbd.py" "$system/libnbdmod$suffix" "$links/"
echo "$links" > "$site/volmig-system-modules.pth"
if ! problem=$("$venv/bin/python" -c 'import nbd; nbd.NBD()' 2>&1); then
    rm -rf "$links" "$site/volmig-system-modules.pth"
    echo "Debian's libnbd cannot be loaded by this Python, so NBD is not available: $problem" >&2
fi
