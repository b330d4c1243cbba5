// SPDX-License-Identifier: GPL-2.0-only
#include "programs.h"

struct many {
  u64 of[64];
};

BPF_PERCPU_ARRAY(counts, struct many, 1);

int process_exit(u64 *ctx) {
  struct task_struct *task = opaque(ctx[0]);
  u32 zero = 0;
  struct many *many = counts.lookup(&zero);

  if (many)
    many->of[task->pid] += 1; // HERE
  return 0;
}
