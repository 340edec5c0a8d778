"""The tests of crates/collective on the device: on a GPU they use NCCL, and all ranks share it. On a cpu they use Gloo.

That several ranks share a GPU is a trick (NCCL_HOSTID), which NVIDIA does not support: it is there to have real peers on one card.
"""

import os
import re
import subprocess

from machine import BIN, CPU, DEVICE, dispatch, require, say

ALONE = ["nccl::nccl_works_on_a_cuda_machine_and_is_refused_clearly_elsewhere", "collectives::one_rank_sums_and_broadcasts"]
TOGETHER = [
    "collectives::two_ranks_sum_and_broadcast_like_a_sequential_loop",
    "failures::abort_from_another_thread_frees_a_stuck_collective",
    "failures::a_silent_peer_is_a_timeout",
    "failures::a_killed_peer_ends_an_all_reduce_of_two",
    "nccl::a_rank_that_waits_inside_nccl_ends_by_kill_and_frees_the_device",
]


def run(tests: list, limit: float) -> None:
    environment = {**os.environ, "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1", "NCCL_DEBUG": "WARN", "RUST_BACKTRACE": "0"}
    if not CPU:
        environment["LETHE_TEST_DEVICE"] = DEVICE
    failed = []
    for test in tests:
        command = [BIN / "lethe-gang-tests", "--exact", test, "--nocapture", "--test-threads", "1"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=limit)
            text, passed = done.stdout + done.stderr, done.returncode == 0 and "1 passed" in done.stdout
        except subprocess.TimeoutExpired as late:
            text = "".join(part.decode(errors="replace") if isinstance(part, bytes) else part or "" for part in [late.stdout, late.stderr])
            text, passed = text + f"\nnot done within {limit} s", False
        skipped = "SKIPPED" in text
        told = [line for line in text.splitlines() if re.search("panicked|SKIPPED|an abort while|not done within|NCCL WARN|assertion", line)]
        say(test=test, passed=passed, skipped=skipped, **({"said": told[:6]} if told else {}))
        print(text, flush=True)
        # On a cpu NCCL is not there to be tested.
        if not passed or (skipped and not CPU):
            failed.append(test)
    require(not failed, f"{len(failed)} of {len(tests)}: {', '.join(failed)}")


if __name__ == "__main__":
    dispatch({"nccl": lambda: run(ALONE, 60 if CPU else 20), "hung": lambda: run(TOGETHER, 90 if CPU else 15)})
