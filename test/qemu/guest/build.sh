#!/bin/sh
# Assembles guest.S into guest.bin, and the others, here or in DIR: build.sh [DIR]
# Debian's binutils-aarch64-linux-gnu and binutils-riscv64-linux-gnu assemble what is not for x86.
set -eu
here=$(dirname "$0")
out=${1:-$here}
object=$(mktemp)
trap 'rm -f "$object"' EXIT
for image in guest:-m32 physical:-m64 paging:-m32; do
	name=${image%:*}
	gcc "${image#*:}" -c -o "$object" "$here/$name.S"
	objcopy -O binary -j .text "$object" "$out/$name.bin"
done
for target in aarch64 riscv64; do
	if ! command -v "$target-linux-gnu-as" >/dev/null; then
		echo "paging-$target.S is not assembled: there is no $target-linux-gnu-as" >&2
		continue
	fi
	"$target-linux-gnu-as" -o "$object" "$here/paging-$target.S"
	"$target-linux-gnu-objcopy" -O binary -j .text "$object" "$out/paging-$target.bin"
done
