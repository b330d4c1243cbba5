// SPDX-License-Identifier: GPL-2.0-only
/* DNS latency over UDP, from packets. PORT and QUERIES are defined by the plan (__init__.py). */
#include "programs.h"

#define IPV4 0x0800
#define IPV6 0x86dd
#define UDP 17
#define IPV4_FRAGMENT 0x1fff
#define RESPONSE 0x80 /* of the third byte of a DNS header: QR */
#define RCODE 0x0f    /* of the fourth */

struct dns_question {
  u8 client[16]; /* IPv4 as v4-mapped IPv6 */
  u8 server[16];
  u16 port; /* the client's */
  u16 id;
};

struct dns_answer {
  u64 latency; /* ns */
  u8 server[16];
  u64 rcode;
};

struct counters {
  u64 queries;
  u64 answers;
  u64 answers_lost; /* ring buffer full */
};
#include "counters.bpf.h"

struct dns_packet { /* UDP and the beginning of DNS, network order */
  u16 source;
  u16 destination;
  u16 length;
  u16 check;
  u16 id;
  u8 flags[2];
};

BPF_TABLE("lru_hash", struct dns_question, u64, waiting, QUERIES);
BPF_RINGBUF_OUTPUT(answers, 64);
LAYOUT(answers, struct dns_answer);

/* Reads the packet whose IP header is at `at`; whether it is UDP of DNS's port, and from whom to whom. */
static __always_inline bool parse(struct sk_buff *skb, void *at, bool response, struct dns_question *q,
                                  struct dns_packet *packet) {
  u8 *from = response ? q->server : q->client, *to = response ? q->client : q->server;
  u16 protocol = bpf_ntohs(skb->protocol);

  if (protocol == IPV4) {
    struct iphdr ip = {};

    bpf_probe_read_kernel(&ip, sizeof(ip), at);
    if (ip.protocol != UDP || (bpf_ntohs(ip.frag_off) & IPV4_FRAGMENT))
      return false;
    from[10] = from[11] = to[10] = to[11] = 0xff;
    __builtin_memcpy(from + 12, &ip.saddr, 4);
    __builtin_memcpy(to + 12, &ip.daddr, 4);
    at += (ip.ihl & 15) * 4;
  } else if (protocol == IPV6) {
    struct ipv6hdr ip = {};

    bpf_probe_read_kernel(&ip, sizeof(ip), at);
    if (ip.nexthdr != UDP)
      return false;
    __builtin_memcpy(from, &ip.saddr, 16);
    __builtin_memcpy(to, &ip.daddr, 16);
    at += sizeof(ip);
  } else {
    return false;
  }
  bpf_probe_read_kernel(packet, sizeof(*packet), at);
  q->port = response ? packet->destination : packet->source;
  q->id = packet->id;
  return (response ? packet->source : packet->destination) == bpf_htons(PORT) &&
         !(packet->flags[0] & RESPONSE) == !response;
}

/* net_dev_queue(struct sk_buff *skb) */
int query(u64 *ctx) {
  struct sk_buff *skb = opaque(ctx[0]);
  struct dns_question q = {};
  struct dns_packet packet = {};
  u64 now;

  if (!parse(skb, (void *)skb->head + skb->network_header, false, &q, &packet))
    return 0;
  now = bpf_ktime_get_ns();
  if (waiting.insert(&q, &now) == 0)
    COUNT(queries);
  return 0;
}

/* netif_receive_skb(struct sk_buff *skb): data is at the IP header, which is not marked yet */
int answer(u64 *ctx) {
  struct sk_buff *skb = opaque(ctx[0]);
  struct dns_question q = {};
  struct dns_packet packet = {};
  struct dns_answer *record;
  u64 *start, latency;

  if (!parse(skb, skb->data, true, &q, &packet))
    return 0;
  start = waiting.lookup(&q);
  if (!start)
    return 0;
  latency = bpf_ktime_get_ns() - *start;
  waiting.delete(&q);
  COUNT(answers);
  record = answers.ringbuf_reserve(sizeof(*record));
  if (!record) {
    COUNT(answers_lost);
    return 0;
  }
  record->latency = latency;
  __builtin_memcpy(record->server, q.server, sizeof(q.server));
  record->rcode = packet.flags[1] & RCODE;
  answers.ringbuf_submit(record, 0);
  return 0;
}
