"""A clock that is hours off, for one process: a library that is loaded before C's own and shifts the wall clock."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    const char *text = getenv("FAULTS_CLOCK_SHIFT_S");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, out);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) out->tv_sec += shift();
    return code;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = (int (*)(struct timeval *, void *)) dlsym(RTLD_NEXT, "gettimeofday");
    int code = real(out, zone);
    if (code == 0 && out) out->tv_sec += shift();
    return code;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


def shifted_clock(folder: Path, shift_s: int) -> tuple[dict[str, str], str]:
    """Environment that shifts the wall clock of what is started with it, and why there is none ("" where there is)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return {}, "no C compiler"
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE, encoding="ascii")
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], capture_output=True, text=True
    )
    if made.returncode != 0:
        return {}, f"{compiler}: {made.stderr.strip()[:200]}"
    return {"LD_PRELOAD": str(library), "FAULTS_CLOCK_SHIFT_S": str(shift_s)}, ""
