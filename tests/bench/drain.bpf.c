// SPDX-License-Identifier: GPL-2.0-only
/* As many events as a core can make: BURST for each getppid, the same for every reader. */
struct drain_event {
  u64 time;
  u64 latency;
  u32 pid, length, local, remote;
  u16 local_port, remote_port;
  u32 kind;
};

#ifdef PERF
BPF_PERF_OUTPUT(events);
#else
BPF_RINGBUF_OUTPUT(events, PAGES);
#endif
BPF_ARRAY(events_layout, struct drain_event, 1);
BPF_PERCPU_ARRAY(counts, u64, 2);

int emit(u64 *ctx) {
  u32 produced = 0, lost = 1;
  u64 *total = counts.lookup(&produced), *failed = counts.lookup(&lost);

  if (ctx[1] != NR_GETPPID || !total || !failed)
    return 0;
#pragma unroll
  for (int i = 0; i < BURST; i++) {
    *total += 1;
#ifdef PERF
    struct drain_event event = {.time = bpf_ktime_get_ns(), .latency = i, .pid = 1};
    if (events.perf_submit(ctx, &event, sizeof(event)) < 0)
      *failed += 1;
#else
    struct drain_event *event = events.ringbuf_reserve(sizeof(*event));
    if (!event) {
      *failed += 1;
      continue;
    }
    event->time = bpf_ktime_get_ns();
    event->latency = i;
    event->pid = 1;
    event->length = event->local = event->remote = event->kind = 0;
    event->local_port = event->remote_port = 0;
    events.ringbuf_submit(event, FLAG);
#endif
  }
  return 0;
}
