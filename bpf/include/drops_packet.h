/* SPDX-License-Identifier: GPL-2.0-only */
/* What a packet's own bytes say: addresses, ports, TCP flags. */
#pragma once

#include "programs.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_OPTIONS 60
#define PROTOCOL_UDPLITE 136
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define EXTENSIONS 6 /* IPv6 extension headers that are looked behind */
#define TRANSPORT 14 /* bytes of a transport header that are looked at: up to TCP's flags */
#define UDP_HEADER 8
#define ICMP_START 4        /* type, code and checksum */
#define TCP_LENGTH 12       /* where TCP says how long its header is, in words, in the upper half of the byte */
#define BY_FRAGMENTS 0xffff /* for a size: each fragment is a packet */
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define FRAGMENT 0x1fff  /* of IPv4's fragment field: any but the first */
#define FRAGMENT6 0xfff8 /* of IPv6's */

/* Everything that tells one flow from another, without gaps: hashed as it is. */
struct drop_flow {
  u64 location; /* in the function that dropped */
  u64 chain;    /* netfilter: what is nearest on the stack of what its hook's functions were registered with; 0: none */
  u64 ran;      /* the hook's function that gave the packet up, 0: not known; and what it was registered with */
  u64 ran_with;
  u8 source[16]; /* IPv4 as v4-mapped IPv6 */
  u8 destination[16];
  u32 reason;
  u32 netns; /* inode number */
  u32 ifindex;
  u16 source_port; /* both in host order; of ICMP 0, and type << 8 | code */
  u16 destination_port;
  u16 ethertype;
  u8 protocol;
  u8 state;  /* of the TCP socket that it belonged to; 0: none */
  u8 hook;   /* netfilter; NO_HOOK: something else dropped it */
  u8 family; /* of the hook */
  u8 old;    /* TCP: all that it brings arrived before; keepalives and window probes bring nothing */
  u8 reserved;
};

/* skb->protocol is known to be IPv4; `at` is where its header begins. The transport header's place, 0 without one. */
static __always_inline u32 read_ipv4(struct drop_flow *flow, u64 head, u32 at) {
  u8 header[IPV4_HEADER] = {};

  if (bpf_probe_read_kernel(header, sizeof(header), (void *)(head + at)) || header[0] >> 4 != 4)
    return 0;
  flow->protocol = header[9];
  flow->source[10] = flow->source[11] = flow->destination[10] = flow->destination[11] = 0xff;
  __builtin_memcpy(&flow->source[12], &header[12], 4);
  __builtin_memcpy(&flow->destination[12], &header[16], 4);
  if (((header[6] << 8) | header[7]) & FRAGMENT)
    return 0;
  return at + (header[0] & 0xf) * 4;
}

static __always_inline u32 read_ipv6(struct drop_flow *flow, u64 head, u32 at) {
  u8 header[IPV6_HEADER] = {};
  u8 extension[4] = {};
  u8 next;

  if (bpf_probe_read_kernel(header, sizeof(header), (void *)(head + at)) || header[0] >> 4 != 6)
    return 0;
  __builtin_memcpy(flow->source, &header[8], 16);
  __builtin_memcpy(flow->destination, &header[24], 16);
  next = header[6];
  at += IPV6_HEADER;
#pragma unroll
  for (int i = 0; i < EXTENSIONS; i++) {
    if (next != PROTOCOL_HOP_BY_HOP && next != PROTOCOL_ROUTING && next != PROTOCOL_OPTIONS &&
        next != PROTOCOL_FRAGMENT)
      break;
    if (bpf_probe_read_kernel(extension, sizeof(extension), (void *)(head + at)))
      return 0;
    at += next == PROTOCOL_FRAGMENT ? 8 : (extension[1] + 1) * 8;
    if (next == PROTOCOL_FRAGMENT && ((extension[2] << 8) | extension[3]) & FRAGMENT6) {
      flow->protocol = extension[0];
      return 0;
    }
    next = extension[0];
  }
  flow->protocol = next;
  return at;
}

/* The TCP flags. */
static __always_inline u32 read_transport_header(struct drop_flow *flow, u64 head, u32 at, u32 tail) {
  u8 header[TRANSPORT] = {};
  bool icmp = flow->protocol == PROTOCOL_ICMP || flow->protocol == PROTOCOL_ICMPV6;
  bool tcp = flow->protocol == PROTOCOL_TCP;
  u32 first, second, flags;

  if (!icmp && !tcp && flow->protocol != PROTOCOL_UDP && flow->protocol != PROTOCOL_UDPLITE)
    return 0;
  if (at + (tcp    ? TRANSPORT
            : icmp ? ICMP_START
                   : UDP_HEADER) >
          tail ||
      bpf_probe_read_kernel(header, sizeof(header), (void *)(head + at)))
    return 0;
  first = (header[0] << 8) | header[1];
  second = (header[2] << 8) | header[3];
  flags = header[13];
  /* values, lest clang choose between two addresses, which the verifier forbids */
  asm volatile("" : "+r"(first), "+r"(second), "+r"(flags));
  flow->source_port = icmp ? 0 : first;
  flow->destination_port = icmp ? first : second;
  return tcp ? flags : 0;
}

/* Where the network header begins, from the buffer's head; eth_type_trans leaves the data there. */
static __always_inline u32 network_of(struct sk_buff *skb, bool direct) {
  u32 at = READ(direct, skb, network_header);

  return at && at != 0xffff ? at : (u64)READ(direct, skb, data) - (u64)READ(direct, skb, head);
}

/* Addresses and protocol; the transport header's place, 0 without one. */
static __always_inline u32 read_network_header(struct drop_flow *flow, struct sk_buff *skb, bool direct) {
  u64 head = (u64)READ(direct, skb, head);
  u32 at = network_of(skb, direct), tail = READ(direct, skb, tail);

  flow->ethertype = bpf_ntohs(READ(direct, skb, protocol));
  if (flow->ethertype == ETHERTYPE_IPV4 && at + IPV4_HEADER <= tail)
    return read_ipv4(flow, head, at);
  if (flow->ethertype == ETHERTYPE_IPV6 && at + IPV6_HEADER <= tail)
    return read_ipv6(flow, head, at);
  return 0;
}

/* Addresses and ports of a packet; its TCP flags. */
static __always_inline u32 read_packet(struct drop_flow *flow, struct sk_buff *skb) {
  u32 transport = read_network_header(flow, skb, true);

  return transport ? read_transport_header(flow, (u64)skb->head, transport, skb->tail) : 0;
}

/* Into how many packets of `size` a buffer will be cut: what is behind its headers, which each of them gets. */
static __always_inline u32 cut_into(struct sk_buff *skb, bool direct, u32 size) {
  struct drop_flow flow = {};
  u64 head = (u64)READ(direct, skb, head);
  u32 transport = read_network_header(&flow, skb, direct), length = READ(direct, skb, len), headers;
  u32 before = (u64)READ(direct, skb, data) - head;
  u8 words = 0;

  if (!transport)
    return 1;
  if (flow.protocol == PROTOCOL_TCP)
    bpf_probe_read_kernel(&words, sizeof(words), (void *)(head + transport + TCP_LENGTH));
  headers = transport + (words ? words >> 4 << 2 : UDP_HEADER) - before;
  return headers < length ? (length - headers + size - 1) / size : 1;
}

/* How many packets a buffer stands for: those merged while they were received, or not cut yet. Their number is given by
 * who merged or will cut, but not where a guest or a user handed the buffer in (virtio, TUN): the kernel itself counts
 * there, once it queues it (qdisc_pkt_len_init).
 *
 * include/linux/skbuff.h: gso_segs is beside gso_size. */
static __always_inline u32 packets_of(struct sk_buff *skb, bool direct) {
  struct skb_shared_info *shared = (void *)((u64)READ(direct, skb, head) + READ(direct, skb, end));
  struct {
    u16 size;
    u16 segments;
  } gso = {};

  bpf_probe_read_kernel(&gso, sizeof(gso), &shared->gso_size);
  if (gso.segments)
    return gso.segments;
  return gso.size && gso.size != BY_FRAGMENTS ? cut_into(skb, direct, gso.size) : 1;
}
