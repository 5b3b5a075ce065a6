#!/usr/bin/env bash
# Unpacks QEMU 7.2 (Debian bookworm) and 10.0 (bookworm-backports) side by side below DIR,
# without installing either: the package lists and downloads are private, and the system stays unchanged.
#
#   test/qemu/install.sh [DIR]        DIR defaults to $VMFERRY_QEMU_DIR, else ~/.cache/vmferry-qemu
#
# Needs Debian 12 and its ordinary apt sources. Each version gets DIR/<version>/run, a wrapper that
# starts that qemu-system-x86_64 with its own libraries and firmware, DIR/<version>/run-<target> for other targets, and
# DIR/<version>/run-img and run-io for qemu-img and qemu-io.
# Downloads: 60 MB for x86, 100 MB for the others, including 46 MB for 7.2's s390x and riscv64 (in qemu-system-misc), 4 MB for qemu-img.
set -euo pipefail
dir=$(realpath -m "${1:-${VMFERRY_QEMU_DIR:-$HOME/.cache/vmferry-qemu}}")
mkdir -p "$dir"

# One lists directory serves both suites. The backports suite is in the same archive under another name.
apt_dir=$dir/apt
mkdir -p "$apt_dir"/{lists/partial,cache}
if [ -f /etc/apt/sources.list.d/debian.sources ]; then
  awk 'BEGIN { RS = ""; ORS = "\n\n" } /Suites:.*bookworm/' /etc/apt/sources.list.d/debian.sources > "$apt_dir/debian.sources"
  awk 'BEGIN { RS = ""; ORS = "\n\n" } /Suites:.*bookworm-updates/ || (/Suites: *bookworm *(\n|$)/)' "$apt_dir/debian.sources" |
    sed 's/^Suites:.*/Suites: bookworm-backports/' > "$apt_dir/backports.sources"
  cat "$apt_dir/backports.sources" >> "$apt_dir/debian.sources"
  list=$apt_dir/debian.sources
else
  grep -hE '^deb .*bookworm' /etc/apt/sources.list > "$apt_dir/debian.list"
  grep -E '^deb .* bookworm main' "$apt_dir/debian.list" | head -n 1 | sed 's/ bookworm / bookworm-backports /' >> "$apt_dir/debian.list"
  list=$apt_dir/debian.list
fi
apt=(apt-get -q -o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" -o Debug::NoLocking=1 -o Acquire::Retries=3)

updated=
wrap() { # root, wrapper, target
  local root=$1
  cat > "$root/$2" <<RUN
#!/bin/sh
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
exec "$root/usr/bin/qemu-system-$3" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "\$@"
RUN
  chmod +x "$root/$2"
}

unpack_targets() { # version, suite, targets, packages...
  local root=$dir/$1 suite=$2 targets=$3 debs=$apt_dir/debs-targets-$1 target deb
  local ready=1
  for target in $targets; do
    "$root/run-$target" --version 2>/dev/null | grep -q "version $1" || ready=
  done
  if [ -n "$ready" ]; then
    echo "QEMU $1 for $targets: $root/run-*"
    return
  fi
  if [ -z "$updated" ]; then "${apt[@]}" update >&2; updated=1; fi
  rm -rf "$debs"
  mkdir -p "$debs/partial"
  "${apt[@]}" -o "Dir::Cache::archives=$debs" install -y --no-install-recommends --download-only --reinstall \
    -t "$suite" "${@:4}" >&2
  for deb in "$debs"/*.deb; do
    case $deb in
      # The packages of targets contain many more emulators.
      */qemu-system-common* | */qemu-system-data*) ;;
      */qemu-system-*) dpkg --fsys-tarfile "$deb" | tar -x -C "$root" --wildcards --no-anchored \
        $(printf 'qemu-system-%s ' $targets) 2> /dev/null || true ;;
      *) dpkg -x "$deb" "$root" ;;
    esac
  done
  rm -rf "$debs"
  for target in $targets; do
    wrap "$root" "run-$target" "$target"
    "$root/run-$target" --version | grep -q "version $1" || { echo "QEMU $1 for $target does not start from $root" >&2; exit 1; }
  done
  echo "QEMU $1 for $targets: $root/run-*"
}

unpack() { # version, suite
  local root=$dir/$1
  if [ -x "$root/run" ] && "$root/run" --version 2>/dev/null | grep -q "version $1"; then
    echo "QEMU $1: $root/run"
    return
  fi
  if [ -z "$updated" ]; then "${apt[@]}" update >&2; updated=1; fi
  local debs=$apt_dir/debs-$1
  rm -rf "$root" "$debs"
  mkdir -p "$root" "$debs/partial"
  "${apt[@]}" -o "Dir::Cache::archives=$debs" install -y --no-install-recommends --download-only --reinstall \
    -t "$2" qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu >&2
  local deb
  for deb in "$debs"/*.deb; do dpkg -x "$deb" "$root"; done
  rm -rf "$debs"
  wrap "$root" run x86_64
  "$root/run" --version | grep -q "version $1" || { echo "QEMU $1 does not start from $root" >&2; exit 1; }
  echo "QEMU $1: $root/run"
}

unpack_tools() { # version, suite
  local root=$dir/$1 debs=$apt_dir/debs-tools-$1 deb tool
  if "$root/run-img" --version 2>/dev/null | grep -q "version $1"; then
    echo "qemu-img $1: $root/run-img"
    return
  fi
  if [ -z "$updated" ]; then "${apt[@]}" update >&2; updated=1; fi
  rm -rf "$debs"
  mkdir -p "$debs/partial"
  "${apt[@]}" -o "Dir::Cache::archives=$debs" install -y --no-install-recommends --download-only --reinstall \
    -t "$2" qemu-utils >&2
  for deb in "$debs"/*.deb; do dpkg -x "$deb" "$root"; done
  rm -rf "$debs"
  for tool in io img; do
    cat > "$root/run-$tool" <<RUN
#!/bin/sh
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$root/usr/bin/qemu-$tool" "\$@"
RUN
    chmod +x "$root/run-$tool"
    "$root/run-$tool" --version | grep -q "version $1" || { echo "qemu-$tool $1 does not start from $root" >&2; exit 1; }
  done
  echo "qemu-img $1: $root/run-img"
}
unpack 7.2 bookworm
unpack 10.0 bookworm-backports
unpack_targets 7.2 bookworm 'aarch64 ppc64 s390x sparc64 riscv64' qemu-system-arm qemu-system-ppc qemu-system-sparc qemu-system-misc
unpack_targets 10.0 bookworm-backports 'aarch64 ppc64 s390x sparc64' qemu-system-arm qemu-system-ppc qemu-system-sparc qemu-system-s390x
unpack_tools 7.2 bookworm
unpack_tools 10.0 bookworm-backports
