/* SPDX-License-Identifier: GPL-2.0-only */
/* What a TCP socket says of its connection. */
#pragma once

#include "programs.h"

#define FAMILY_IPV6 10

struct addresses {
  u8 local[16]; /* IPv4 as v4-mapped IPv6 */
  u8 remote[16];
  u16 local_port; /* both in host order */
  u16 remote_port;
};

/* Into zeroes. They do not change while the connection lives. */
static __always_inline void read_addresses(struct addresses *a, struct sock *sk) {
  struct sock_common *common = &sk->__sk_common;
  u16 family = 0, port = 0;

  bpf_probe_read_kernel(&family, sizeof(family), &common->skc_family);
  bpf_probe_read_kernel(&a->local_port, sizeof(u16), &common->skc_num);
  bpf_probe_read_kernel(&port, sizeof(port), &common->skc_dport);
  a->remote_port = bpf_ntohs(port);
  if (family == FAMILY_IPV6) {
    bpf_probe_read_kernel(a->local, 16, &common->skc_v6_rcv_saddr);
    bpf_probe_read_kernel(a->remote, 16, &common->skc_v6_daddr);
  } else {
    a->local[10] = a->local[11] = 0xff;
    a->remote[10] = a->remote[11] = 0xff;
    bpf_probe_read_kernel(&a->local[12], 4, &common->skc_rcv_saddr);
    bpf_probe_read_kernel(&a->remote[12], 4, &common->skc_daddr);
  }
}

/* The inode number of its network namespace. */
static __always_inline u32 netns_of_socket(struct sock *sk) {
  struct net *net = NULL;
  u32 number = 0;

  bpf_probe_read_kernel(&net, sizeof(net), &sk->__sk_common.skc_net.net);
  bpf_probe_read_kernel(&number, sizeof(number), &net->ns.inum);
  return number;
}

/* NULL where it is no TCP socket: MPTCP and SCTP go through the same states. */
static __always_inline struct tcp_sock *tcp_sock_of(struct sock *sk, bool direct) {
  return direct ? bpf_skc_to_tcp_sock(sk) : (struct tcp_sock *)sk;
}

/* Of a socket that is known to be one of TCP's: nothing is asked, and kernels from 6.2 on make no instruction of it. */
static __always_inline struct tcp_sock *surely_tcp_sock(struct sock *sk, bool direct) {
#ifdef KFUNC_bpf_rdonly_cast
  return direct ? ((void *(*)(void *, u64))KFUNC_bpf_rdonly_cast)(sk, TYPE_tcp_sock) : (struct tcp_sock *)sk;
#else
  return tcp_sock_of(sk, direct);
#endif
}

/* Only a socket that was accepted inherits its listener's backlog. */
static __always_inline bool is_accepted(struct sock *sk, bool direct) {
  return READ(direct, sk, sk_max_ack_backlog) != 0;
}

/* Of a socket that goes from SYN_RECV to ESTABLISHED: whether it sent a SYN of its own, which was acknowledged. Then
 * both ends opened the connection at once, or the socket is connected to itself, and they are clients. */
static __always_inline bool has_opened(struct sock *sk, struct tcp_sock *tp, bool direct) {
  return !is_accepted(sk, direct) && READ(direct, tp, bytes_acked);
}

/* The sequence numbers that the connection began with, the smaller one in the upper half: the same number for every
 * probe that looks at it, whenever it does, and at both ends, also where nobody can say who opened it. What was
 * acknowledged or received so far was counted from there on. Only a client's SYN is counted as acknowledged.
 */
static __always_inline u64 connection_id(struct sock *sk, bool client, bool direct) {
  struct tcp_sock *tp = tcp_sock_of(sk, direct);
  u32 ours, theirs;

  if (!tp)
    return 0;
  ours = READ(direct, tp, snd_una) - (u32)READ(direct, tp, bytes_acked) + client;
  theirs = READ(direct, tp, rcv_nxt) - (u32)READ(direct, tp, bytes_received);
  return ours < theirs ? (u64)ours << 32 | theirs : (u64)theirs << 32 | ours;
}
