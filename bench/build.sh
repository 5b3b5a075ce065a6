#!/usr/bin/env bash
# Builds everything that `npm run bench` runs into bench/build: the baselines (needs gcc and Node's headers), the kernels,
# the kernels for a shared memory, and the benchmark itself.
set -euo pipefail
cd "$(dirname "$0")/.."
out=bench/build
mkdir -p "$out"

headers=
for candidate in "$(dirname "$(dirname "$(realpath "$(command -v node)")")")/include/node" /usr/include/node; do
  if [ -f "$candidate/node_api.h" ]; then headers=$candidate; break; fi
done
[ -n "$headers" ] || { echo 'bench: node_api.h not found: install the headers of Node (libnode-dev)' >&2; exit 1; }

gcc -O2 -Wall -Wextra -fPIC -c bench/native/scalar.c -o "$out/scalar.o"
gcc -O3 -mavx2 -mbmi -mpopcnt -Wall -Wextra -fPIC -c bench/native/native.c -o "$out/native.o"
gcc -O3 -mavx -mbmi -mpopcnt -mprefer-vector-width=128 -DVECTOR=16 -Wall -Wextra -fPIC -c bench/native/native.c -o "$out/narrow.o"
gcc -O2 -Wall -Wextra -fPIC "-I$headers" -c bench/native/addon.c -o "$out/addon.o"
gcc -shared -o "$out/addon.node" "$out/scalar.o" "$out/native.o" "$out/narrow.o" "$out/addon.o"
gcc -O2 -Wall -Wextra bench/native/pwrite.c -o "$out/pwrite"

if [ -f /usr/include/zlib.h ] && [ -f /usr/include/zstd.h ]; then
  gcc -O2 -Wall -Wextra -fPIC -shared "-I$headers" bench/native/codecs.c -o "$out/codecs.node" -lz -lzstd
else
  rm -f "$out/codecs.node"
fi

npm run --silent build:wasm
npx asc assembly/index.ts --target shared
npx tsup --silent --config bench/tsup.config.ts
