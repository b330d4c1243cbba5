"""What a drop reason means for people: its category, and what to look at next. One table.

Reasons are named as in `enum skb_drop_reason`, without SKB_ and DROP_REASON_. Where a reason says too little, or the
kernel gives none, the function that dropped decides.
"""

from __future__ import annotations

import enum

from attrs import frozen

from . import netfilter


class Category(str, enum.Enum):
    """A kind of drop that people can act on; the value is what output says."""

    NO_SOCKET = "no socket"
    FIREWALL = "firewall"
    CONGESTION = "congestion"
    MALFORMED = "malformed"
    ROUTING = "routing"
    MEMORY = "memory"
    TCP_STATE = "tcp state"
    XDP = "xdp"
    TC = "tc"
    POLICY = "policy"
    OTHER = "other"
    NORMAL = "normal"


NEXT = {
    Category.NO_SOCKET: "does anything listen on that address and port (ss -lntu), in that namespace?",
    Category.FIREWALL: netfilter.NEXT_RULE,
    Category.CONGESTION: "a queue is full: ss -m and -lt, tc -s qdisc, /proc/net/softnet_stat; slow reader or burst",
    Category.MALFORMED: "who sends it: bad checksums or headers; offloads of the sending device (ethtool -k)",
    Category.ROUTING: "ip route get ADDRESS, ip neigh, rp_filter, hops left (TTL)",
    Category.MEMORY: "free memory; net.ipv4.tcp_mem and udp_mem against /proc/net/sockstat",
    Category.TCP_STATE: "the connection's state (ss -ti) and nstat -az TcpExt*: duplicates, resets, windows",
    Category.XDP: "the device's XDP program: ip link show DEVICE, bpftool net",
    Category.TC: "filters of the device: tc filter show dev DEVICE ingress (or egress), bpftool net",
    Category.POLICY: "IPsec policies, socket filters, cgroup programs, security modules",
    Category.OTHER: "the function named beside it, in the kernel's source",
    Category.NORMAL: "nothing: it was used, its data had arrived before, or its owner went away",
}

_REASONS = {
    Category.NO_SOCKET: "NO_SOCKET IP_NOPROTO UNHANDLED_PROTO VXLAN_VNI_NOT_FOUND",
    Category.FIREWALL: "NETFILTER_DROP",
    Category.CONGESTION: (
        "SOCKET_RCVBUFF SOCKET_BACKLOG TCP_LISTEN_OVERFLOW QDISC_DROP QDISC_OVERLIMIT QDISC_CONGESTED CAKE_FLOOD "
        "FQ_BAND_LIMIT FQ_HORIZON_LIMIT FQ_FLOW_LIMIT DUALPI2_STEP_DROP CPU_BACKLOG FULL_RING NEIGH_QUEUEFULL "
        "TCP_OFO_QUEUE_PRUNE TCP_ZEROWINDOW PACKET_SOCK_ERROR"
    ),
    Category.MALFORMED: (
        "PKT_TOO_SMALL TCP_CSUM UDP_CSUM IP_CSUM ICMP_CSUM SKB_CSUM IP_INHDR HDR_TRUNC DEV_HDR INVALID_PROTO "
        "IPV6_BAD_EXTHDR IPV6_NDISC_FRAG IPV6_NDISC_HOP_LIMIT IPV6_NDISC_BAD_CODE IPV6_NDISC_BAD_OPTIONS DUP_FRAG "
        "FRAG_REASM_TIMEOUT FRAG_TOO_FAR SKB_GSO_SEG TCP_FLAGS TCP_INVALID_SYN VXLAN_INVALID_HDR MAC_INVALID_SOURCE "
        "IP_TUNNEL_ECN CAN_RX_INVALID_FRAME CANFD_RX_INVALID_FRAME CANXL_RX_INVALID_FRAME"
    ),
    Category.ROUTING: (
        "IP_RPFILTER IP_OUTNOROUTES IP_INNOROUTES IP_INADDRERRORS IP_LOCAL_SOURCE IP_INVALID_SOURCE IP_LOCALNET "
        "IP_INVALID_DEST OTHERHOST UNICAST_IN_L2_MULTICAST IPV6DISABLED NEIGH_CREATEFAIL NEIGH_FAILED NEIGH_DEAD "
        "NEIGH_HH_FILLFAIL PKT_TOO_BIG IPV6_NDISC_NS_OTHERHOST NO_TX_TARGET LOCAL_MAC BRIDGE_INGRESS_STP_STATE "
        "VXLAN_ENTRY_EXISTS TUNNEL_TXINFO RECURSION_LIMIT DEV_READY MAC_IEEE_MAC_CONTROL"
    ),
    Category.MEMORY: "NOMEM PROTO_MEM PFMEMALLOC SKB_UCOPY_FAULT",
    Category.TCP_STATE: (
        "TCP_OVERWINDOW TCP_RFC7323_PAWS TCP_RFC7323_PAWS_ACK TCP_RFC7323_TW_PAWS "
        "TCP_RFC7323_TSECR TCP_OLD_SEQUENCE TCP_INVALID_SEQUENCE TCP_INVALID_END_SEQUENCE TCP_INVALID_ACK_SEQUENCE "
        "TCP_CLOSE TCP_FASTOPEN TCP_OLD_ACK TCP_TOO_OLD_ACK TCP_ACK_UNSENT_DATA TCP_ABORT_ON_DATA"
    ),
    Category.XDP: "XDP",
    Category.TC: "TC_EGRESS TC_INGRESS TC_COOKIE_ERROR TC_CHAIN_NOTFOUND TC_RECLASSIFY_LOOP",
    Category.POLICY: (
        "SOCKET_FILTER XFRM_POLICY BPF_CGROUP_EGRESS SECURITY_HOOK TCP_AUTH_HDR TCP_MD5NOTFOUND TCP_MD5UNEXPECTED "
        "TCP_MD5FAILURE TCP_AONOTFOUND TCP_AOUNEXPECTED TCP_AOKEYNOTFOUND TCP_AOFAILURE TCP_MINTTL TAP_FILTER "
        "TAP_TXFILTER ARP_PVLAN_DISABLE PSP_INPUT PSP_OUTPUT"
    ),
    Category.NORMAL: (
        "NOT_DROPPED_YET CONSUMED SOCKET_CLOSE UNIX_DISCONNECT UNIX_SKIP_OOB QUEUE_PURGE TCP_RESET "
        "TCP_OLD_DATA TCP_OFOMERGE TCP_OFO_DROP"  # all of the data is in other segments: received, or waiting for a gap
    ),
}

_WITH_FUNCTION = {
    ("IP_INHDR", "ip_forward"): Category.ROUTING,  # no hops left
    ("IP_INHDR", "ip6_forward"): Category.ROUTING,
    ("NOT_SPECIFIED", "tcp_v4_rcv"): Category.TCP_STATE,  # a closed port has a reason, where there are reasons
    ("NOT_SPECIFIED", "tcp_v6_rcv"): Category.TCP_STATE,
}

_FUNCTIONS = {  # without a reason, or with NOT_SPECIFIED
    Category.NO_SOCKET: "tcp_v4_rcv tcp_v6_rcv udp_rcv __udp4_lib_rcv __udp6_lib_rcv udpv6_rcv ip_protocol_deliver_rcu "
    "ip6_protocol_deliver_rcu __netif_receive_skb_core __netif_receive_skb_core.constprop.0",
    Category.FIREWALL: "nf_hook_slow nft_do_chain ipt_do_table ip6t_do_table nf_queue __nf_queue nf_reinject "
    "nfqnl_reinject",
    Category.CONGESTION: "__udp_enqueue_schedule_skb udp_queue_rcv_one_skb __udp_queue_rcv_skb udpv6_queue_rcv_one_skb "
    "__udpv6_queue_rcv_skb kfree_skb_list __dev_queue_xmit __dev_xmit_skb enqueue_to_backlog tcp_add_backlog "
    "tcp_v4_syn_recv_sock tcp_v6_syn_recv_sock tcp_conn_request sock_queue_rcv_skb raw_rcv",
    Category.ROUTING: "ip_forward ip6_forward ip_error ip_rcv_finish ip_rcv_finish_core ip6_pkt_drop ip_local_out "
    "ip6_mc_input arp_error_report ndisc_error_report neigh_invalidate __neigh_event_send ip_output ip6_output "
    "ip_finish_output2 ip6_finish_output2 arp_process",
    Category.MALFORMED: "ip_rcv_core ip_rcv_core.isra.0 ip6_rcv_core ip6_rcv_core.isra.0 icmp_rcv icmpv6_rcv",
    Category.TCP_STATE: "tcp_validate_incoming tcp_data_queue tcp_rcv_state_process tcp_rcv_established tcp_drop "
    "tcp_ofo_queue tcp_data_queue_ofo tcp_v4_do_rcv tcp_v6_do_rcv tcp_ack",
    Category.XDP: "do_xdp_generic netif_receive_generic_xdp veth_xdp_rcv_skb generic_xdp_tx",
    Category.TC: "sch_handle_ingress sch_handle_egress",
    Category.POLICY: "sk_filter_trim_cap __xfrm_policy_check",
    Category.NORMAL: "igmp_rcv skb_release_data bpf_prog_test_run_skb",
}

# with reasons, a closed port has one; what has none is no datagram, or no policy (xfrm) lets it in
_UDP = ("udp_rcv", "__udp4_lib_rcv", "udpv6_rcv", "__udp6_lib_rcv")
_BRIDGE = "br_handle_frame"  # runs the first hook itself (nf_hook_bridge_pre); before 6.7 chains let it drop
# of old data, and of keepalives and window probes, whose number is one before the expected one; the general reason is
# that before 6.3
_OLD = ("TCP_OLD_SEQUENCE", "TCP_INVALID_SEQUENCE")
_TIME_WAIT = 6
_FIN, _SYN = 1, 2
_OF_REASON = {reason: category for category, reasons in _REASONS.items() for reason in reasons.split()}
_OF_FUNCTION = {function: category for category, names in _FUNCTIONS.items() for function in names.split()}
SAYS_NOTHING = ("NOT_SPECIFIED", "")


def short(reason: str) -> str:
    """`NO_SOCKET` of `SKB_DROP_REASON_NO_SOCKET`."""
    return reason.removeprefix("SKB_").removeprefix("DROP_REASON_")


@frozen
class Packet:
    """What a category may depend on beside reason and function.

    Attributes:
        state: Of the TCP socket that it belonged to, 0 where it is not known.
        flags: TCP's, all that were seen.
        old: Whether all that it brought had arrived before; a keepalive or a window probe of TCP's brings nothing.
        headless: Whether it was UDP, and too short for its header.
        bridged: Whether it was on its way through one of a bridge's hooks.
    """

    state: int = 0
    flags: int = 0
    old: bool = False
    headless: bool = False
    bridged: bool = False


def categorize(reason: str, function: str, packet: Packet) -> Category:
    """The category of a drop.

    Args:
        reason: Its short name; empty where the kernel gives none.
        function: The function that dropped.
        packet: What was dropped.
    """
    if packet.old and reason in _OLD:
        return Category.NORMAL
    # the last segments of a connection end there; before 6.11 nothing says of which socket
    ending = packet.state == _TIME_WAIT or (not packet.state and packet.flags & (_FIN | _SYN) == _FIN)
    if ending and reason in SAYS_NOTHING and function in ("tcp_v4_rcv", "tcp_v6_rcv"):
        return Category.NORMAL
    if reason in SAYS_NOTHING and function in _UDP and (packet.headless or reason):
        return Category.MALFORMED if packet.headless else Category.POLICY
    if reason in SAYS_NOTHING and function == _BRIDGE and packet.bridged:
        return Category.FIREWALL
    if (reason, function) in _WITH_FUNCTION:
        return _WITH_FUNCTION[reason, function]
    if reason not in SAYS_NOTHING:
        return _OF_REASON.get(reason, Category.OTHER)
    if function.startswith("xfrm"):
        return Category.POLICY
    return _OF_FUNCTION.get(function, Category.OTHER)
