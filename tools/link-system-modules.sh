#!/bin/sh
# link-system-modules.sh DIR: make Debian's libnbd and Ceph modules visible in the virtual environment DIR.
#
# They are not on PyPI.  Only their own files are linked, into a directory of their own: the rest of dist-packages
# must not shadow the pinned packages.  A missing module is no error: what needs it says so when it is used.
set -eu
venv=$1
system=${DIST_PACKAGES:-/usr/lib/python3/dist-packages}
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
suffix=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
links=$site/volmig-system-modules

mkdir -p "$links"
echo "$links" > "$site/volmig-system-modules.pth"

# link NAME PACKAGE TEST FILE...
link() {
    name=$1 package=$2 test=$3
    shift 3
    # Left alone when it works: another process may be importing it right now.
    last=$(eval echo "\${$#}")
    if [ "$(readlink "$links/$last" 2>/dev/null)" = "$system/$last" ] &&
        "$venv/bin/python" -c "$test" 2>/dev/null; then
        return
    fi
    for file; do
        rm -f "$links/$file"
        if [ ! -e "$system/$file" ]; then
            echo "No $name for this Python ($suffix): it is not available. On Debian: apt-get install $package"
            return
        fi
    done
    for file; do ln -s "$system/$file" "$links/$file"; done
    if ! problem=$("$venv/bin/python" -c "$test" 2>&1); then
        for file; do rm -f "$links/$file"; done
        echo "Debian's $name cannot be loaded by this Python, so it is not available: $problem" >&2
    fi
}

link libnbd python3-libnbd 'import nbd; nbd.NBD()' nbd.py "libnbdmod$suffix"
link rados python3-rados 'import rados' "rados$suffix"
link rbd python3-rbd 'import rbd' "rbd$suffix"
