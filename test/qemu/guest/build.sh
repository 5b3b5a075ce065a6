#!/bin/sh
# Assembles guest.S into guest.bin, or into the file named: build.sh [OUT]
set -eu
here=$(dirname "$0")
out=${1:-$here/guest.bin}
object=$(mktemp)
trap 'rm -f "$object"' EXIT
gcc -m32 -c -o "$object" "$here/guest.S"
objcopy -O binary -j .text "$object" "$out"
