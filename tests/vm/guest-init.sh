#!/bin/busybox sh
# Runs first in the guest: mounts the host's root read-only, a layer in memory above it, and goes there.
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
exec </dev/null
. /settings
while read -r module; do $B insmod "/m/$module" 2>/dev/null; done </m/order

give_up() { $B echo "guest: $1" >/dev/console; $B poweroff -f; }
$B mount -t virtiofs -o ro hostroot /ro || give_up "the host's root cannot be mounted"
$B mount -t tmpfs -o mode=755,size=75% tmpfs /rw
$B mkdir -p /rw/upper /rw/scratch
$B mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/scratch overlay /new || give_up "no overlay"

for directory in proc sys dev; do $B mkdir -p /new/$directory; $B mount --move /$directory /new/$directory; done
$B mkdir -p /new/run /new/dev/pts /new/dev/shm "/new/lib/modules/$RELEASE"
$B mount -t tmpfs -o mode=755 tmpfs /new/run
$B mkdir -p /new/run/lock /new/run/guest
$B mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
$B mount -t tmpfs -o mode=1777 tmpfs /new/dev/shm
$B mount -o bind "/new$MODULES" "/new/lib/modules/$RELEASE"
$B ln -sf /proc/self/fd /new/dev/fd
$B ln -sf /proc/self/fd/0 /new/dev/stdin
$B ln -sf /proc/self/fd/1 /new/dev/stdout
$B ln -sf /proc/self/fd/2 /new/dev/stderr
$B cp /bin/busybox /settings /command /start /new/run/guest/
exec $B switch_root /new /run/guest/busybox sh /run/guest/start
