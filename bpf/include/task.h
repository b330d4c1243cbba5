/* SPDX-License-Identifier: GPL-2.0-only */
/* Whose something is: process, command, cgroup. */
#pragma once

#include "programs.h"

struct owner {
  u64 cgroup; /* its id in the v2 hierarchy */
  char command[16];
  u32 pid; /* 0: not known */
  u32 padding;
};

/* The current process: in softirq that is whoever happens to run. */
static __always_inline void own(struct owner *owner) {
  owner->cgroup = bpf_get_current_cgroup_id();
  owner->pid = bpf_get_current_pid_tgid() >> 32;
  bpf_get_current_comm(owner->command, sizeof(owner->command));
}

/* The process of any task. */
static __always_inline void own_for(struct owner *owner, struct task_struct *task) {
  struct task_struct *leader = NULL;
  struct css_set *set = NULL;
  struct cgroup *group = NULL;
  struct kernfs_node *node = NULL;

  bpf_probe_read_kernel(&leader, sizeof(leader), &task->group_leader);
  bpf_probe_read_kernel(&owner->pid, sizeof(owner->pid), &task->tgid);
  bpf_probe_read_kernel(owner->command, sizeof(owner->command), &leader->comm);
  bpf_probe_read_kernel(&set, sizeof(set), &task->cgroups);
  bpf_probe_read_kernel(&group, sizeof(group), &set->dfl_cgrp);
  bpf_probe_read_kernel(&node, sizeof(node), &group->kn);
  bpf_probe_read_kernel(&owner->cgroup, sizeof(owner->cgroup), &node->id);
}
