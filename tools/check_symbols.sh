#!/usr/bin/env bash
# tools/check_symbols.sh BUILD: what our objects and libraries must not hold.
# 1. No object of ours defines anything of gloo:: (its headers here are older than the Gloo inside LibTorch, which is
#    safe only while no Gloo object or subclass is made by us).
# 2. libfathom links no CUDA.
set -euo pipefail
build=${1:?usage: tools/check_symbols.sh BUILD}
status=0

while IFS= read -r -d '' object; do
  # Defined symbols that are gloo's own: members, tables, type information; not templates that merely name a type.
  found=$(nm -C --defined-only "$object" 2>/dev/null |
    grep -E '^[0-9a-f]+ [A-Za-z] ((vtable|typeinfo|typeinfo name|VTT|guard variable|construction vtable|(non-)?virtual thunk) (for|to) )?(gloo|c10d::ProcessGroupGloo::(GlooStore|AsyncWork|SendWork|RecvWork))::' || true)
  found+=$(nm -C --defined-only "$object" 2>/dev/null |
    grep -E '^[0-9a-f]+ [A-Za-z] (vtable|typeinfo|typeinfo name) for c10d::ProcessGroupGloo' || true)
  if [ -n "$found" ]; then
    echo "check_symbols: $object defines symbols of Gloo:" >&2
    head -n 3 <<<"$found" >&2
    status=1
  fi
done < <(find "$build" -name '*.o' -path '*fathom*' -print0)

for library in "$build"/src/libfathom.so "$build"/src/fathom; do
  [ -e "$library" ] || continue
  found=$(readelf -d "$library" | grep NEEDED | grep -E 'cuda|nccl|cublas|cudnn|c10_cuda|torch_python' || true)
  if [ -n "$found" ]; then
    echo "check_symbols: $library links CUDA: $found" >&2
    status=1
  fi
done
exit $status
