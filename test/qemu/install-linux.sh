#!/usr/bin/env bash
# Fetches a Debian kernel and makes a small system that it starts, for test/qemu/linux-core.test.ts. Changes nothing in the
# system: no installation, no service.
#
#   test/qemu/install-linux.sh [DIR]    DIR defaults to $VMFERRY_LINUX_DIR, else ~/.cache/vmferry-linux
#
# Needs Debian for x86-64, and 150 MB of disk. The tests also use gdb, and the Debian packages python3-drgn and crash.
set -euo pipefail
dir=$(realpath -m "${1:-${VMFERRY_LINUX_DIR:-$HOME/.cache/vmferry-linux}}")
if [ -f "$dir/vmlinuz" ] && [ -f "$dir/initrd" ]; then
  echo "Linux: $dir"
  exit
fi
mkdir -p "$dir"
work=$(mktemp -d "$dir/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
apt-get -q download "$kernel" busybox-static
for deb in *.deb; do dpkg -x "$deb" root; done

mkdir -p system/proc system/sys
cp root/bin/busybox system/
find root/lib/modules -name qemu_fw_cfg.ko -exec cp {} system/ \;
# The module hands the note VMCOREINFO to the device vmcoreinfo.
cat > system/init <<'INIT'
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
/busybox insmod /qemu_fw_cfg.ko
/busybox grep -E ' linux_banner$' /proc/kallsyms
echo ready
while :; do /busybox sleep 1000; done
INIT
chmod +x system/init
(cd system && find . | ./busybox cpio -o -H newc) | gzip > initrd
cp root/boot/vmlinuz-* vmlinuz
mv vmlinuz initrd "$dir"
echo "Linux: $dir"
