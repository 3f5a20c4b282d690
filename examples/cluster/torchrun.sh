#!/bin/bash
# Trains a stage on all GPUs of this machine, or of several: give the same command on each of them.
#
#   ./torchrun.sh                                                  # one machine
#   NODES=4 RENDEZVOUS=gpu001:29400 ./torchrun.sh                  # on each of four machines
#
# A process that dies ends the others; torchrun starts all of them again, up to three times, from the newest checkpoint.
set -euo pipefail

DATA=${DATA:-shards} OUT=${OUT:-runs/decoder} CLIP=${CLIP:-runs/clip}
more=()
if [ "${NODES:-1}" -gt 1 ]; then more=(--nodes "$NODES" --rendezvous "$RENDEZVOUS"); fi

exec unclip train decoder --recipe dalle2 --data "$DATA" --out "$OUT" --clip "$CLIP" \
  --set precision=bf16 --set parallel.layout=fsdp \
  --launch torchrun "${more[@]}" "$@"
