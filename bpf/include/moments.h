/* SPDX-License-Identifier: GPL-2.0-only */
/* What of nanoseconds is kept exactly: number, sum, sum of squares in 128 bits, smallest and largest. */
#pragma once

#include "programs.h"

/* Of several records together. Atomic adds alone, since a softirq may add while a process does, on the same CPU: there
 * is no carry from one word to the next, user space makes one. */
struct moments {
  u64 events;
  u64 sum;
  u64 min;
  u64 max;
  u64 square_low; /* 32 bits of each */
  u64 square_middle;
  u64 square_high;
};

/* Adds the square of a value below 2^36 to the low half of 128 bits; what is to be added to the high half. */
static __always_inline u64 add_square(u64 *low, u64 value) {
  u64 top = value >> 32, rest = value & 0xffffffff, square = value * value, high = 0;

  if (top) { /* above 4.29 s a square no longer fits */
    u64 middle = 2 * top * rest;
    high = top * top + (middle >> 32) + (((middle & 0xffffffff) + ((rest * rest) >> 32)) >> 32);
  }
  *low += square;
  return high + (*low < square);
}

/* The smallest and the largest are the only ones that an interruption within these nanoseconds may lose. */
static __always_inline void moments_merge(struct moments *m, const struct moments *other) {
  if (!other->events)
    return;
  if (!m->events || other->min < m->min)
    m->min = other->min;
  if (other->max > m->max)
    m->max = other->max;
  __sync_fetch_and_add(&m->events, other->events);
  __sync_fetch_and_add(&m->sum, other->sum);
  __sync_fetch_and_add(&m->square_low, other->square_low);
  __sync_fetch_and_add(&m->square_middle, other->square_middle);
  __sync_fetch_and_add(&m->square_high, other->square_high);
}
