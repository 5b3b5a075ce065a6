#!/bin/sh
# Assembles guest.S into guest.bin and physical.S into physical.bin, here or in DIR: build.sh [DIR]
set -eu
here=$(dirname "$0")
out=${1:-$here}
object=$(mktemp)
trap 'rm -f "$object"' EXIT
for image in guest:-m32 physical:-m64; do
	name=${image%:*}
	gcc "${image#*:}" -c -o "$object" "$here/$name.S"
	objcopy -O binary -j .text "$object" "$out/$name.bin"
done
