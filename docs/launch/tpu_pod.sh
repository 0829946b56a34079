#!/bin/bash
# A TPU pod slice, with data and runs in a bucket that all workers mount:
#   PROJECT=my-project ZONE=us-west4-a BUCKET=my-bucket ./tpu_pod.sh v5litepod-64
set -euo pipefail
type=$1 name=jaxvision-$USER
gcloud compute tpus tpu-vm create "$name" --project "$PROJECT" --zone "$ZONE" \
  --accelerator-type "$type" --version v2-alpha-tpuv5-lite
on_all() {
  gcloud compute tpus tpu-vm ssh "$name" --project "$PROJECT" --zone "$ZONE" --worker=all --command "$1"
}
on_all "sudo mkdir -p /mnt/bucket && sudo chmod 777 /mnt/bucket && gcsfuse --implicit-dirs $BUCKET /mnt/bucket"
on_all "git clone https://github.com/jaxvision/jaxvision && pip install -q -e './jaxvision[tpu]'"
# The workers find each other by themselves. After a preemption, create and the same line again resume.
on_all "jaxvision train --config imagenet_vit --config.data.dir=/mnt/bucket/imagenet --config.mesh.data=-1 --workdir /mnt/bucket/runs/vit"
gcloud compute tpus tpu-vm delete "$name" --project "$PROJECT" --zone "$ZONE" --quiet
