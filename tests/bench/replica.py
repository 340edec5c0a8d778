"""The same training as ddp.py as one replica of torchft: it survives the loss of others, and comes back by itself.

Started once per replica by fleet.py, with its number as the second argument; writes down its process and its committed steps.
"""

import json
import os
import sys
import time
from datetime import timedelta

import torch.distributed as dist
from ddp import prepare
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    replica, folder = int(sys.argv[2]), settings["folder"]
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    managers = []

    def guard(trained, optimiser):
        def state() -> dict:
            return {"model": trained.state_dict(), "optimiser": optimiser.state_dict()}

        def load(state: dict) -> None:
            trained.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])

        manager = Manager(
            pg=ProcessGroupGloo(timeout=timedelta(seconds=5)),
            min_replica_size=2,
            load_state_dict=load,
            state_dict=state,
            replica_id=f"replica_{replica}",
            store_addr="localhost",
            store_port=store.port,
            rank=0,
            world_size=1,
            timeout=timedelta(seconds=10),
        )
        managers.append(manager)
        return DistributedDataParallel(manager, trained), Optimizer(manager, optimiser)

    _, _, step = prepare(settings, replica, 3, guard)
    with open(os.path.join(folder, f"pid-{replica}"), "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    with open(os.path.join(folder, f"steps-{replica}"), "a", encoding="utf-8", buffering=1) as file:
        while True:
            step()
            file.write(f"{managers[0].current_step()} {managers[0].num_participants()} {time.time()}\n")


if __name__ == "__main__":
    main()
