# Runs in the guest as root: the tests whose names are in the results folder, with their reports written there.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /lib/modules /run/lock
mount -t tmpfs modules /lib/modules
ln -s "$MODULES" "/lib/modules/$(uname -r)"
ln -sfn /proc/self/fd /dev/fd
ip link set lo up
cd "$CHECKOUT" || exit
if [ -d /mnt/cache ]; then # what this machine compiles is there for its next start
  export XDG_CACHE_HOME=/mnt/cache
  echo "$MARK compiles"
  "$PYTHON" -m tests.vm.objects
fi
echo "$MARK begins"
"$PYTHON" -m pytest @/mnt/results/tests --reports /mnt/results/reports -p no:cacheprovider --override-ini timeout=600
echo "$MARK ends"
sync
/bin/busybox poweroff -f
