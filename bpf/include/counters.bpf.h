/* SPDX-License-Identifier: GPL-2.0-only */
/* What was produced, and what was lost by which cause: counters of each CPU, in the map `counters`.
 *
 * The includer has defined `struct counters`, each field a u64; `summed` in probekit.decode is the reader.
 */
#pragma once

#include "programs.h"

BPF_PERCPU_ARRAY(counters, struct counters, 1);

static __always_inline struct counters *this_cpu_counters(void) {
  u32 zero = 0;

  return counters.lookup(&zero);
}

/* Atomic because a softirq may count while a process does, on the same CPU. */
#define COUNT(cause) \
  ({ \
    struct counters *counters_ = this_cpu_counters(); \
    if (counters_) \
      __sync_fetch_and_add(&counters_->cause, 1); \
  })

/* Of a ring buffer's records each `nth` wakes its reader: that costs microseconds. `count` is one of the counters. */
#define WAKE_EACH(nth, count) \
  ({ \
    struct counters *counters_ = this_cpu_counters(); \
    counters_ && counters_->count % (nth) ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP; \
  })
