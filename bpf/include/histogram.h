/* SPDX-License-Identifier: GPL-2.0-only */
/* Log-linear histograms of nanoseconds, one copy for each CPU.
 *
 * Values below 2 * 2^HISTOGRAM_BITS have a bucket each; above, every power of two is cut into 2^HISTOGRAM_BITS
 * buckets. A bucket is thus at most 1/64 of its value wide, its middle at most 0.8 % off. Two histograms are merged by
 * adding them. probekit/aggregate/histogram.py is the reader.
 */
#pragma once

#define HISTOGRAM_BITS 6
#define HISTOGRAM_BUCKETS 1984 /* up to 2^36 ns = 68.7 s */

struct distribution {
  u64 events;
  u64 sum;
  u64 min;
  u64 max;
  u64 square_low; /* sum of squares, 128 bits */
  u64 square_high;
  u64 buckets[HISTOGRAM_BUCKETS];
};

static __always_inline u32 histogram_bucket(u64 value) {
  u32 shift = 0;
  u64 rest = value >> (HISTOGRAM_BITS + 1);

  /* shift = number of bits above the first 2 * 2^HISTOGRAM_BITS values; there is no instruction for it */
  if (rest >> 16) {
    rest >>= 16;
    shift += 16;
  }
  if (rest >> 8) {
    rest >>= 8;
    shift += 8;
  }
  if (rest >> 4) {
    rest >>= 4;
    shift += 4;
  }
  if (rest >> 2) {
    rest >>= 2;
    shift += 2;
  }
  if (rest >> 1) {
    rest >>= 1;
    shift += 1;
  }
  if (rest)
    shift += 1;
  return (shift << HISTOGRAM_BITS) + (u32)(value >> shift);
}

/* Adds the square of a value below 2^36 to 128 bits. */
static __always_inline void add_square(u64 *low, u64 *high, u64 value) {
  u64 top = value >> 32, rest = value & 0xffffffff, square = value * value;

  if (top) { /* above 4.29 s a square no longer fits */
    u64 middle = 2 * top * rest;
    *high += top * top + (middle >> 32) + (((middle & 0xffffffff) + ((rest * rest) >> 32)) >> 32);
  }
  *low += square;
  if (*low < square)
    *high += 1;
}

static __always_inline void distribution_add(struct distribution *d, u64 value) {
  u32 bucket = histogram_bucket(value);

  if (!d->events || value < d->min)
    d->min = value;
  if (value > d->max)
    d->max = value;
  d->events += 1;
  d->sum += value;
  add_square(&d->square_low, &d->square_high, value);
  if (bucket < HISTOGRAM_BUCKETS)
    d->buckets[bucket] += 1;
}
