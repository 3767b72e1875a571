#!/bin/sh
# system-packages.sh [--install] PACKAGE...: make sure that these Debian packages are there.
#
# What is missing is installed when this is Debian and the user is root (or --install was given); otherwise the
# message names the packages.  Without apt-get the tools themselves are looked for.
set -eu
must_install=no
if [ "${1:-}" = --install ]; then must_install=yes; shift; fi

tool_of() {
    case $1 in
        e2fsprogs) echo mkfs.ext4 ;;
        xfsprogs) echo mkfs.xfs ;;
        btrfs-progs) echo mkfs.btrfs ;;
        chromium) echo chromium ;;
        nbdkit) echo nbdkit ;;
        libnbd-bin) echo nbdcopy ;;
        qemu-utils) echo qemu-nbd ;;
        qemu-system-x86) echo qemu-system-x86_64 ;;
        busybox-static) echo busybox ;;
        kmod) echo modprobe ;;
        lvm2) echo lvm ;;
        tgt) echo tgtd ;;
        libiscsi-bin) echo iscsi-ls ;;
        ceph-mon) echo ceph-mon ;;
        ceph-osd) echo ceph-osd ;;
        python3-venv) echo : ;;
        *) echo : ;;
    esac
}

is_there() {
    if [ "$1" = python3-venv ]; then
        "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null && return 0
    fi
    if command -v dpkg-query >/dev/null 2>&1; then
        [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = "install ok installed" ] && return 0
        [ "$(tool_of "$1")" = : ] && return 1
    fi
    PATH="$PATH:/usr/sbin:/sbin" command -v "$(tool_of "$1")" >/dev/null 2>&1
}

missing=
for package; do
    is_there "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    install() { apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=600 $missing; }
    # Lists may be missing or old; they are read anew only when the packages are not found.
    if ! install >"$log" 2>&1 && ! { apt-get update -q >"$log" 2>&1 && install >>"$log" 2>&1; }; then
        tail -n 20 "$log" >&2
        echo "These packages could not be installed:$missing" >&2
        exit 1
    fi
    exit 0
fi
echo "These packages are missing:$missing" >&2
echo "On Debian, as root: apt-get install$missing   (or: make system-packages)" >&2
[ "$must_install" = no ] || echo "This user is not root, or there is no apt-get." >&2
exit 1
