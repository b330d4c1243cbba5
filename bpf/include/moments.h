/* SPDX-License-Identifier: GPL-2.0-only */
/* What of nanoseconds is kept exactly: number, sum, sum of squares in 128 bits, smallest and largest. */
#pragma once

#include "programs.h"

struct moments {
  u64 events;
  u64 sum;
  u64 min;
  u64 max;
  u64 square_low;
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

static __always_inline void moments_merge(struct moments *m, const struct moments *other) {
  if (!other->events)
    return;
  if (!m->events || other->min < m->min)
    m->min = other->min;
  if (other->max > m->max)
    m->max = other->max;
  m->events += other->events;
  m->sum += other->sum;
  m->square_low += other->square_low;
  m->square_high += other->square_high + (m->square_low < other->square_low);
}
