"""Netfilter in words: its hooks, and which of the functions at a hook dropped a packet.

A chain is named if it is certain that it did it, or one of those that are named together; else none is: connection
tracking and NAT drop at the same hooks as rules do (net/netfilter/core.c, nf_conntrack_core.c, nf_nat_core.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

_IPV6, _ARP, NETDEV, BRIDGE = 10, 3, 5, 7
_FAMILIES = {1: "inet", 2: "ip", _ARP: "arp", NETDEV: "netdev", BRIDGE: "bridge", _IPV6: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_HOOKS_OF = {NETDEV: ("ingress", "egress"), _ARP: ("input", "output", "forward")}
_RULES = "nft_do_chain"
_QUEUE = ("nf_queue", "__nf_queue")
_LEGACY = {"ipt_do_table": "iptables", "ip6t_do_table": "ip6tables", "arpt_do_table": "arptables"}
# before 5.16 each table had a function of its own
_LEGACY_BEFORE = {"iptable_": "iptables", "ip6table_": "ip6tables", "arptable_": "arptables"}
_NAT = "nf_nat_"
_TRACKING = ("nf_conntrack", "nf_confirm", "nf_ct_", "ipv4_conntrack_", "ipv6_conntrack_", "ipv4_confirm",
             "ipv6_confirm", "ipv4_helper", "ipv6_helper", _NAT)  # fmt: skip
_MODULES = ("apparmor", "selinux", "smack")  # of security, which refuse what is labelled
_NEVER = ("ipv4_conntrack_defrag", "ipv6_defrag")  # what they keep is no drop

NEXT_RULE = "the chain or table named beside it: nft list ruleset, iptables -S"
NEXT_TRACKING = (
    "connection tracking or NAT itself, no rule: conntrack -S (drop, insert_failed), "
    "sysctl net.netfilter.nf_conntrack_max against nf_conntrack_count"
)
NEXT_QUEUE = "no program reads the queue, or too slowly (NFQUEUE): /proc/net/netfilter/nfnetlink_queue"
NEXT_UNKNOWN = (
    "a rule, or connection tracking itself: nft list ruleset, iptables -S; conntrack -S, "
    "sysctl net.netfilter.nf_conntrack_max"
)


@frozen
class HookEntry:
    """A function at a netfilter hook.

    Attributes:
        function: Its name.
        chain: What it was registered with.
        table: The nftables table's name, if that was a chain.
        name: The chain's.
        legacy: The table's name, if it was one of iptables.
    """

    function: str
    chain: int
    table: str = ""
    name: str = ""
    legacy: str = ""


@frozen
class Dropped:
    """What is known of a drop at a hook.

    Attributes:
        family: The hook's: NFPROTO_*.
        hook: Its number there.
        function: Name of the function that freed the packet.
        chain: What is nearest on the stack of what functions there were registered with; 0: nothing.
        ran: Name of the hook's function that gave the packet up; empty where it is not known.
        ran_with: What that was registered with.
    """

    family: int
    hook: int
    function: str
    chain: int = 0
    ran: str = ""
    ran_with: int = 0


Key = tuple[int, int, int, int]
Registered = Mapping[Key, list[HookEntry]]
"""Functions at hooks by namespace, family, hook and, for a device's hooks, its number."""


def key(netns: int, family: int, hook: int, ifindex: int) -> Key:
    """The hook that a device's, or a namespace's, packets come by."""
    return netns, family, hook, ifindex if family == NETDEV else 0


def hook_name(family: int, hook: int) -> str:
    """`input`; the number where there is no name."""
    names = _HOOKS_OF.get(family, _HOOKS)
    return names[hook] if hook < len(names) else str(hook)


def blame(drop: Dropped, registered: list[HookEntry], nft_frees: bool) -> tuple[str, str]:
    """The chain or table that dropped, and what to look at next.

    Args:
        drop: The drop.
        registered: Functions at the hook, in the order in which they run.
        nft_frees: Whether what nftables drops is always freed by itself (from 6.11 on; from 6.7 on it may be).

    Returns:
        `inet filter input`, several with ` | ` between them if it is one of these, or nothing where it is not certain
        that it was any rule.
    """
    if drop.function.startswith(_RULES):
        chains = list(_of_rules(drop, registered))
    elif drop.ran:
        chains = [_entry(registered, drop.ran, drop.ran_with)]
    else:
        chains = [entry for entry in registered if _may_drop(entry, drop.function, nft_frees)]
    words = [_described(entry, drop.family, drop.hook) for entry in chains]
    chain = " | ".join(dict.fromkeys(words)) if all(words) else ""
    if drop.function in _QUEUE:
        return chain, NEXT_QUEUE
    if chain:
        return chain, NEXT_RULE
    return "", NEXT_TRACKING if drop.ran.startswith(_TRACKING) and chains else NEXT_UNKNOWN


def _of_rules(drop: Dropped, registered: list[HookEntry]) -> Iterator[HookEntry]:
    """Which chain nftables ran: as the hook's function says, and the stack; all that it may be where neither does."""
    if drop.ran and not drop.ran.startswith(_RULES):
        return  # a chain of type nat, which NAT's function calls
    chains = [entry for entry in registered if entry.function.startswith(_RULES)]
    found = [entry for entry in chains if entry.chain in (drop.chain, drop.ran_with)]
    if found:
        yield from found
    elif not any(entry.function.startswith(_NAT) for entry in registered):
        yield from chains


def _entry(registered: list[HookEntry], function: str, chain: int) -> HookEntry:
    same = (entry for entry in registered if (entry.function, entry.chain) == (function, chain))
    return next(same, HookEntry(function, chain))


def _may_drop(entry: HookEntry, function: str, nft_frees: bool) -> bool:
    if entry.function in _NEVER or (function in _QUEUE and entry.function.startswith(_TRACKING)):
        return False
    return function in _QUEUE or not (nft_frees and entry.function.startswith(_RULES))


def _described(entry: HookEntry, family: int, hook: int) -> str:
    """`ip filter INPUT`, `iptables filter INPUT`, `bpf program`; empty for what has no rules."""
    where = hook_name(family, hook)
    if entry.function.startswith(_RULES):
        of = "inet" if "inet" in entry.function else _FAMILIES.get(family, str(family))
        return f"{of} {entry.table} {entry.name}" if entry.name else f"nft {of} {where}"
    if entry.function in _LEGACY:
        return f"{_LEGACY[entry.function]} {entry.legacy} {where.upper()}"
    for prefix, tool in _LEGACY_BEFORE.items():
        if entry.function.startswith(prefix):
            return f"{tool} {entry.function.removeprefix(prefix).partition('_')[0]} {where.upper()}"
    if entry.function.startswith("ebt_"):
        return f"ebtables {where.upper()}"
    if entry.function.startswith(_MODULES):
        return entry.function.partition("_")[0]
    return "bpf program" if entry.function == "nf_hook_run_bpf" else ""
