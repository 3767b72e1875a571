# Runs in the guest on the host's root: sets up what an init system would, runs the command, switches off.
B=/run/guest/busybox
. /run/guest/settings
$B hostname guest
$B ip link set lo up
# There is no udev here: libdevmapper and LVM make their own device nodes, and look at real disks only.
export DM_DISABLE_UDEV=1
$B mkdir -p /run/lvm /etc/lvm
$B cat >/etc/lvm/lvm.conf <<CONF
devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0
 reserved_memory=0 reserved_stack=0 use_mlockall=0 process_priority=0 }
global { use_lvmpolld=0 }
backup { backup=0 archive=0 }
CONF
$B rm -rf /var/lock
$B ln -sf /run/lock /var/lock
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/
if [ -n "$NETWORK" ]; then
    modprobe virtio_net
    # What QEMU's user network expects of its only guest.
    $B ip link set eth0 up
    $B ip addr add 10.0.2.15/24 dev eth0
    $B ip route add default via 10.0.2.2
fi
cd "$FOLDER" || $B echo "guest: no $FOLDER" >/dev/vport0p1
/bin/sh /run/guest/command </dev/null >/dev/vport0p1 2>&1
status=$?
$B sync
$B echo "status=$status" >/dev/vport0p2
$B poweroff -f
