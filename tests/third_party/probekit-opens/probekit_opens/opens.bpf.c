// SPDX-License-Identifier: GPL-2.0-only
#include "programs.h"

/* Defined by the plan: WAITING. */

struct opened {
  char command[16];
  char path[64];
};
BPF_QUEUE(opened, struct opened, WAITING);

struct open_counters {
  u64 calls, lost;
};
BPF_PERCPU_ARRAY(counters, struct open_counters, 1);

int opening(struct trace_event_raw_sys_enter *ctx) {
  struct opened record = {};
  int zero = 0;
  struct open_counters *count = counters.lookup(&zero);

  if (!count)
    return 0;
  count->calls++; /* a program is not run again on this CPU while it runs */
  bpf_get_current_comm(record.command, sizeof(record.command));
  bpf_probe_read_user_str(record.path, sizeof(record.path), (void *)ctx->args[1]);
  if (opened.push(&record, 0))
    count->lost++;
  return 0;
}
