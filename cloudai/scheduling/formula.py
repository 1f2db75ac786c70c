"""The formulas of spec sections 4, 5 and 7 as plain arithmetic, each written once.

The router calls them with numpy arrays over the fleet, the optimiser compiles them (numba) and calls them with numbers:
so they take and give nothing but numbers, arrays and mutable sequences, and use nothing that only one of the two knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudai.scheduling.units import MILLI

#: A number, or an array of them with one entry a node.
Value = Any

#: Scores that differ by no more than this part are equal: a sum may be rounded differently in another order.
SAME = 1e-12


def reserved_share(capacity: int, available: int) -> float:
    """Reserved part of a capacity; 0 where there is no capacity (spec section 4)."""
    return (capacity - available) / capacity if capacity else 0.0


def contention(
    theta1: float, theta2: float, theta3: float, theta4: float, cpu: Value, memory: Value, gpu: Value, L: Value
) -> Value:
    """The bracket of E: 1 + theta1*cpu ratio + theta2*memory ratio + theta3*gpu ratio + theta4*L (spec section 5)."""
    return 1 + theta1 * cpu + theta2 * memory + theta3 * gpu + theta4 * L


def runtime_weights(
    tau_b: float,
    theta1: float,
    theta2: float,
    theta3: float,
    theta4: float,
    cpu: float,
    memory: float,
    gpu: float,
) -> tuple[float, float, float, float, float]:
    """Weights of 1, 1/cpu_avail, 1/memory_avail, 1/gpu_avail and L in E without the pair's speed; tau_b = tau * b."""
    return tau_b, tau_b * theta1 * cpu, tau_b * theta2 * memory, tau_b * theta3 * gpu, tau_b * theta4


def lateness(E: Value, slack_s: Value) -> Value:
    """Delta = max(0, F - deadline) = max(0, E - slack), slack = deadline - now, seconds (spec section 5)."""
    return np.maximum(E - slack_s, 0.0)


def base_risk(alpha: float, Delta: Value, beta: float, L: Value) -> Value:
    """R = alpha*Delta + beta*L (spec section 5)."""
    return alpha * Delta + beta * L


def placement_offset(affinity: Value, penalty: Value) -> Value:
    """What the final risk adds to R: Rfinal = R - affinity + penalty (spec section 5)."""
    return penalty - affinity


def gpu_fits(gpu_milli: int, largest_share: Value, whole: Value) -> Value:
    """Whether devices can serve a request now: a share needs one device with that much free, more need whole ones.

    `gpu_milli` in thousandths of a device, above 0; `largest_share` is the largest free share of one device, 0..1,
    `whole` the number of wholly free devices.
    """
    if gpu_milli < MILLI:
        return largest_share >= gpu_milli / MILLI
    return whole >= gpu_milli / MILLI


def take_devices(free: Any, gpu_milli: int, holders: Any, holder: int) -> int:
    """Take GPU shares out of `free` (thousandths by device, changed in place) as the ledger does.

    Returns the device of a share, -1 for whole ones: those get `holder` in `holders`, which is as long as `free`.
    Whole devices come from those that are wholly free; a share comes from the fullest device that has room for it. The
    caller has checked that it fits.
    """
    if gpu_milli <= 0:
        return -1
    if gpu_milli < MILLI:
        fullest = -1
        for device in range(len(free)):
            if free[device] >= gpu_milli and (fullest < 0 or free[device] < free[fullest]):
                fullest = device
        free[fullest] -= gpu_milli
        return fullest
    left = gpu_milli // MILLI
    for device in range(len(free)):
        if left > 0 and free[device] == MILLI:
            free[device] = 0
            holders[device] = holder
            left -= 1
    return -1


def learned_variance(learning_rate: float, runtime: float, tau: float, variance: float) -> float:
    """Running variance of the runtime around tau, `tau` as it was before (spec section 2)."""
    d = runtime - tau
    return (1.0 - learning_rate) * (variance + learning_rate * d * d)


def learned_tau(learning_rate: float, runtime: float, tau: float) -> float:
    """tau_new = lambda * runtime + (1 - lambda) * tau_old (spec section 2)."""
    return learning_rate * runtime + (1 - learning_rate) * tau


def affinity_score(a1: float, a2: float, a3: float, speed: Value, sla_ok: Value, overload: Value) -> Value:
    """Affinity = a1*speed + a2*sla_ok - a3*overload, clipped to [-5, 5] (spec section 7).

    `speed` is the mean runtime of the type over all nodes, over that on this node: fast nodes have more than 1.
    """
    return np.minimum(np.maximum(a1 * speed + a2 * sla_ok - a3 * overload, -5.0), 5.0)


def penalty_score(g1: float, g2: float, g3: float, fail_rate: Value, overload_rate: Value, energy: Value) -> Value:
    """Penalty = g1*sla_fail_rate + g2*overload_rate + g3*energy_norm (spec section 7)."""
    return g1 * fail_rate + g2 * overload_rate + g3 * energy
