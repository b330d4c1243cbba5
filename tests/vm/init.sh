#!/bin/sh
# The guest's first program: this machine's files, read-only below a file system in memory, become its root.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod "$module"; done
for word in $(cat /proc/cmdline); do
  case $word in probekit.*) export "${word#probekit.}" ;; esac
done
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$options,cache=loose,ro" root /lower || echo "root cannot be mounted"
mount -t tmpfs upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
mkdir -p /root/proc /root/sys /root/dev /root/run
for folder in proc sys dev; do mount -o move "/$folder" "/root/$folder"; done
for share in $(echo "$SHARES" | tr , ' '); do
  mkdir -p "/root/mnt/$share"
  mount -t 9p -o "$options" "$share" "/root/mnt/$share" || echo "$share cannot be mounted"
done
mount -t tmpfs run /root/run
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t bpf bpf /root/sys/fs/bpf
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
exec switch_root /root /bin/bash "$SCRIPT"
