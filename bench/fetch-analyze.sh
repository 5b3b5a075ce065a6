#!/usr/bin/env bash
# Fetches analyze-migration.py from Debian's source package of QEMU into DIR (default ~/.cache/vmferry-qemu). Tests and
# benchmarks run it and compare its output; nobody here reads it. Downloads about 130 MB and keeps only that one file.
# Package lists and downloads are private, as in test/qemu/install.sh, which must run first.
set -euo pipefail
dir=$(realpath -m "${1:-${VMFERRY_QEMU_DIR:-$HOME/.cache/vmferry-qemu}}")
to=$dir/analyze-migration.py
if [ -s "$to" ]; then echo "$to"; exit; fi
apt_dir=$dir/apt-source
mkdir -p "$apt_dir"/{lists/partial,cache}
awk 'BEGIN { RS = ""; ORS = "\n\n" } !/Suites: *bookworm-backports/' "$dir/apt/debian.sources" |
  sed 's/^Types:.*/Types: deb-src/' > "$apt_dir/debian.sources"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$apt_dir/debian.sources" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" -o Debug::NoLocking=1 -o Acquire::Retries=3)
"${apt[@]}" update >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The unpacked source would take 1 GB, so only the script is extracted from the archive.
(cd "$work" && "${apt[@]}" source --download-only qemu >&2 && tar -xf qemu_*.orig.tar.* --wildcards '*/scripts/analyze-migration.py')
cp "$work"/*/scripts/analyze-migration.py "$to"
echo "$to"
