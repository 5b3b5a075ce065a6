#!/usr/bin/env bash
# Makes a private Debian 13 tree with libvirt 11, its QEMU 10.0 and the compressors, for test/qemu/libvirt.test.ts.
# Changes nothing in the system: no installation, no service.
#
#   test/qemu/install-libvirt.sh [DIR]    DIR defaults to $VMFERRY_LIBVIRT_DIR, else ~/.cache/vmferry-libvirt
#
# Needs root, Debian with its archive keyring, and 1 GB of disk.
set -euo pipefail
dir=$(realpath -m "${1:-${VMFERRY_LIBVIRT_DIR:-$HOME/.cache/vmferry-libvirt}}")
root=$dir/root
if [ -x "$root/usr/sbin/libvirtd" ] && [ -x "$root/usr/bin/lzop" ]; then
  echo "libvirt: $root"
  exit
fi
mkdir -p "$dir/debs" "$dir/tools"
rm -rf "$root"
(cd "$dir/debs" && apt-get -q download debootstrap)
dpkg -x "$dir"/debs/debootstrap_*.deb "$dir/tools"
mirror=${VMFERRY_DEBIAN_MIRROR:-http://deb.debian.org/debian}
DEBOOTSTRAP_DIR=$dir/tools/usr/share/debootstrap sh "$dir/tools/usr/sbin/debootstrap" --variant=minbase \
  --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$root" "$mirror"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
cat /etc/resolv.conf > "$root/etc/resolv.conf"
cat /etc/hosts > "$root/etc/hosts"
# In its own mount namespace, so that /proc disappears with it.
DEBIAN_FRONTEND=noninteractive unshare --mount sh -c "mount -t proc proc '$root/proc' && chroot '$root' \
  apt-get -q -y --no-install-recommends install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients \
  qemu-system-x86 qemu-utils seabios gzip bzip2 xz-utils lzop zstd" < /dev/null
rm -rf "$dir/debs" "$dir/tools"
echo "libvirt: $root"
