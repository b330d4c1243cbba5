// SPDX-License-Identifier: GPL-2.0-only
#include "programs.h"

int process_exit(u64 *ctx) {
  struct task_struct *task = opaque(ctx[0]);

  return task->start_tim; // HERE
}
