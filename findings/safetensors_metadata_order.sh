#!/usr/bin/env bash
# safetensors writes the keys of a file's metadata in an order that changes from call to call.
#
# The good guess: equal tensors and equal metadata give equal bytes, as equal tensors alone do: the
#   header sorts the tensors, and a Python dict has an order.
# The behavior: with two or more keys of metadata the bytes of `save` and `save_file` differ between
#   processes (and between calls of one process), so that checksums, caches by content and
#   reproducible artifacts break by chance. One key, for example of JSON text, is stable.
# Versions: safetensors 0.8.0, numpy 2.4.6, Python 3.11.
# Output seen:
#   no metadata: 1 version of the bytes in 20 calls
#   one key: 1 version of the bytes in 20 calls
#   four keys: several versions of the bytes in 20 calls
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > "$work/run.py" <<'PY'
import numpy as np
from safetensors.numpy import save

tensors = {"w": np.ones(2, dtype=np.float32)}
cases = {
    "no metadata": None,
    "one key": {"a": "1"},
    "four keys": {"a": "1", "b": "2", "c": "3", "d": "4"},
}
for name, metadata in cases.items():
    versions = len({save(tensors, metadata) for _ in range(20)})
    count = "1 version" if versions == 1 else "several versions"
    print(f"{name}: {count} of the bytes in 20 calls")
PY
cd "$work"
seen=$("$work/venv/bin/python" run.py)
echo "$seen"
expected='no metadata: 1 version of the bytes in 20 calls
one key: 1 version of the bytes in 20 calls
four keys: several versions of the bytes in 20 calls'
[ "$seen" = "$expected" ]
