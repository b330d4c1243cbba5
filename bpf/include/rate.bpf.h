/* SPDX-License-Identifier: GPL-2.0-only */
/* So many a second, and no more. */
#pragma once

#include "programs.h"

#define SECOND 1000000000

struct events_rate {
  u64 second;
  u64 events;
};

BPF_ARRAY(rate, struct events_rate, 1);

/* Whether one more fits into this second. Two CPUs may begin a second at once: a few more then get through. */
static __always_inline bool within_rate(u64 now, u64 most) {
  u32 zero = 0;
  struct events_rate *r = rate.lookup(&zero);
  u64 second = now / SECOND;

  if (!r)
    return false;
  if (r->second != second) {
    r->second = second;
    r->events = 0;
  }
  if (r->events >= most)
    return false;
  __sync_fetch_and_add(&r->events, 1);
  return true;
}
