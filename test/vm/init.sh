#!/bin/busybox sh
# The first program of the virtual machine: makes the host's root file system the guest's, read-only under a
# layer in memory, and runs there what the host left in the shared directory. The console's lines go to the
# host's file of them; what the script prints goes through a port of its own.
/bin/busybox --install -s /bin
export PATH=/bin

over() {
  echo "memkv-vm: $1"
  sync
  poweroff -f
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
for module in /modules/*.ko; do
  insmod "$module" || over "loading $module failed"
done

options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$options,ro,cache=loose" root /lower || over "mounting the host's root file system failed"
mount -t tmpfs tmpfs /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new ||
  over "the layer over the host's root file system could not be mounted"
mount -t proc proc /new/proc
mount --rbind /sys /new/sys
mount --rbind /dev /new/dev
mount -t tmpfs tmpfs /new/run
mkdir /new/run/memkv-vm
mount -t 9p -o "$options,cache=none" share /new/run/memkv-vm || over "mounting the shared directory failed"
ifconfig lo 127.0.0.1 up
hostname memkv-vm

port=
for directory in /sys/class/virtio-ports/*; do
  if [ "$(cat "$directory/name")" = output ]; then
    port=/dev/${directory##*/}
  fi
done
[ -n "$port" ] || over "there is no port for the output"

echo "memkv-vm: running the script"
chroot /new /bin/sh /run/memkv-vm/command </dev/null >"$port" 2>&1
echo $? >/new/run/memkv-vm/code
over "the script ended with $(cat /new/run/memkv-vm/code)"
