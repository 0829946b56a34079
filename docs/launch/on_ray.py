"""Hosts of a Ray cluster, a process each: `python on_ray.py NUMBER_OF_HOSTS`.

Each actor takes a whole host. Where one fails all end; started again, the run resumes from its
workdir, which all hosts see.
"""

import shlex
import socket
import subprocess
import sys

import ray

COMMAND = shlex.split(
    "jaxvision train --config imagenet_vit --config.data.dir=/shared/imagenet "
    "--config.mesh.data=-1 --workdir /shared/runs/vit"
)
GPUS = 8  # of a host


@ray.remote(num_gpus=GPUS)
class Host:
    def address(self) -> str:
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def train(self, coordinator: str, processes: int, process: int) -> int:
        own = ["--coordinator", coordinator, "--num-processes", str(processes)]
        return subprocess.call([*COMMAND, *own, "--process-id", str(process)])


def main() -> None:
    count = int(sys.argv[1])
    ray.init(address="auto")
    hosts = [Host.remote() for _ in range(count)]
    coordinator = ray.get(hosts[0].address.remote())
    codes = ray.get([host.train.remote(coordinator, count, n) for n, host in enumerate(hosts)])
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
