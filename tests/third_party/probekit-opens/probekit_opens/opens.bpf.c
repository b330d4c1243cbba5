// SPDX-License-Identifier: GPL-2.0-only
#include "programs.h"

/* Defined by the plan: WAITING. */

struct opened {
  char command[16];
  char path[64];
};
BPF_QUEUE(opened, struct opened, WAITING);

struct counters {
  u64 calls, lost;
};
#include "counters.bpf.h"

int opening(struct trace_event_raw_sys_enter *ctx) {
  struct opened record = {};

  COUNT(calls);
  bpf_get_current_comm(record.command, sizeof(record.command));
  bpf_probe_read_user_str(record.path, sizeof(record.path), (void *)ctx->args[1]);
  if (opened.push(&record, 0))
    COUNT(lost);
  return 0;
}
