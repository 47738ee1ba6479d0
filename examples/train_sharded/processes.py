"""One process or many: on this machine over loopback, or on a cluster that starts them."""

import argparse
import signal
import socket
import subprocess
import sys
import time

import jax


def connect(options: argparse.Namespace) -> None:
    """Makes this process one of the run, before JAX looks for its devices."""
    if options.cluster:
        jax.distributed.initialize()  # SLURM, Kubernetes and Cloud TPU tell JAX the rest
        return
    jax.config.update("jax_num_cpu_devices", options.devices)
    if options.process is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(options.coordinator, options.processes, options.process)


def start(count: int) -> int:
    """Starts this command in `count` processes here; returns the exit code, that of the first one to fail.

    They end together: if one is killed, the others would wait for it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, *sys.argv, "--coordinator", address, "--process"]
    processes = [subprocess.Popen([*command, str(i)]) for i in range(count)]
    try:
        while any(process.poll() is None for process in processes):
            failed = [process.returncode for process in processes if process.poll()]
            if failed:
                time.sleep(1)  # for the messages of the others
                return say(failed[0])
            time.sleep(0.1)
        return say(next((process.returncode for process in processes if process.returncode), 0))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def say(code: int) -> int:
    """Reports that a process ended badly; returns the exit code of the command."""
    if code:
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed (exit code {code})"
        print(f"train.py: a process {how}, so all were ended", file=sys.stderr)
    return 128 - code if code < 0 else code
