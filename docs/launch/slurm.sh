#!/bin/bash
# Nodes of GPUs on SLURM, a process a GPU:  sbatch slurm.sh
#SBATCH --job-name=jaxvision
#SBATCH --nodes=4
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
# The processes find each other by themselves. Two minutes before its time is over the run gets SIGTERM,
# saves and leaves; queued again, by --requeue after a failed node or by hand, it resumes.
srun --kill-on-bad-exit=1 \
  jaxvision train --config imagenet_resnet50:modern --config.data.dir=/datasets/imagenet --config.mesh.data=-1 --config.data.threads=12 --workdir /runs/resnet50
