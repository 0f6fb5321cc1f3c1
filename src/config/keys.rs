//! The one table of configuration keys: name, kind, default, sentence. The reader, the messages about mistakes and
//! `deploy/aorta.example.toml` all come from it. It reads no file.

use std::fmt::Write as _;

/// What a key's value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within bounds, both included.
    Whole {
        /// Smallest value taken.
        min: i64,
        /// Largest value taken.
        max: i64,
    },
    /// One of a few numbers.
    Numbers(&'static [i64]),
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// One of a few words.
    Words(&'static [&'static str]),
    /// A list of texts; a lone text counts as a list of one.
    List,
    /// A table whose keys the operator chooses and whose values are texts.
    Table,
}

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Full dotted name; its last part ends in the unit where there is one (`_ms`, `_s`, `_bytes`).
    pub name: &'static str,
    /// What is taken.
    pub kind: Kind,
    /// The default, as TOML.
    pub default: &'static str,
    /// What an operator needs to know; goes into the example file.
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

const fn whole(min: i64, max: i64) -> Kind {
    Kind::Whole { min, max }
}

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
/// Seconds of a year: nothing that is measured in seconds here may be longer.
const YEAR_S: i64 = 365 * 24 * 3600;

/// Every key, in the order of the example file: those without a section first, as TOML wants it.
#[rustfmt::skip] // a table reads as a table
pub const KEYS: &[Key] = &[
    key("node_id", Kind::Text, "\"\"",
        "This node's name, 1 to 64 bytes of a-z 0-9 . _ -, unique in the cluster. Empty: the name in the certificate, \
         or \"node\" for a node that runs alone. When given it must equal the certificate's."),
    key("data_dir", Kind::Text, "\"/var/lib/aorta\"",
        "Folder of the snapshots. It belongs to one node: that of another is refused. A relative path counts from this \
         file's folder."),
    key("domains", Kind::List, "[]",
        "Domains served; a REGISTER for another is answered 404. Empty: any domain."),
    key("aor_case_sensitive", Kind::Flag, "true",
        "Whether Bob@example.com and bob@example.com are two AoRs (RFC 3261 section 19.1.4 says so). The same on every node."),
    key("tel_domain", Kind::Text, "\"\"",
        "Domain that global tel: numbers belong to: tel:+1-201-555-0123 is then +12015550123@tel_domain. Empty: tel: \
         URIs are not served."),
    key("max_contacts_per_aor", whole(1, 1000), "10",
        "Live contacts an AoR may have; one more is refused with 403. The same on every node."),
    key("entries_per_aor_max", whole(1, 100_000), "256",
        "Contacts an AoR may have, removed and lapsed ones that are still remembered included; a new one beyond it is \
         refused with 403."),
    key("memory_max_mb", whole(0, 16 * MIB), "0",
        "Memory that the table of contacts may take, MB (of 1048576 bytes); 0: as much as there is. While it takes more on \
         any node, every node answers 403 to a REGISTER for an AoR of which nothing is known, and from a tenth more on for \
         one without a contact; all else goes on. The process needs half as much again, and what outbox_bytes_max allows. \
         The same on every node, by the smallest machine."),
    key("expires_min_s", whole(1, YEAR_S), "60",
        "Shortest lifetime granted; a phone that asks for less, yet more than 0, is answered 423 with this as Min-Expires. \
         An hour and more is never too brief (RFC 3261 section 10.3)."),
    key("expires_default_s", whole(1, YEAR_S), "3600",
        "Lifetime granted to a phone that asks for none, or for something that is no number."),
    key("expires_max_s", whole(1, YEAR_S), "7200",
        "Longest lifetime granted; a phone that asks for more gets this. A removal is remembered this long and \
         clock_ahead_max_s longer, by the largest value in the cluster."),
    key("path_mode", Kind::Words(&["lazy", "strict", "off"]), "\"lazy\"",
        "Path (RFC 3327) of a REGISTER. \"lazy\": stored always, returned in the 200 only to a phone that supports it. \
         \"strict\": a REGISTER with Path from a phone that does not support it is answered 420. \"off\": \
         stored, never returned."),
    key("path_in_redirect", Kind::Words(&["route", "none"]), "\"route\"",
        "How a 302 tells a contact's Path: \"route\" puts it into the Contact URI as ?Route=, \"none\" leaves it out."),
    key("redirect_multiple", Kind::Numbers(&[302, 300]), "302",
        "Status of a redirect to several contacts."),
    key("no_binding_status", Kind::Numbers(&[404, 480]), "404",
        "Answer to a request for an AoR without a live contact."),
    key("probe_users", Kind::List, "[]",
        "User parts in OPTIONS that ask for the node itself and not for a phone: [\"ping\"] for sip:ping@192.0.2.10."),
    key("not_ready_options", Kind::Words(&["503", "silent"]), "\"503\"",
        "What OPTIONS to a node that is not ready get: \"503\" or, for an SBC that takes any answer for health, \"silent\"."),
    key("retry_after_s", whole(0, 3600), "2",
        "Retry-After in that 503, seconds."),
    key("ack", Kind::Words(&["all", "one", "none", "disk"]), "\"all\"",
        "Who must hold a binding before its phone gets 200: \"all\" linked nodes, any \"one\" of them, \"none\", or \"disk\": \
         all, this node too, each on its disk (one group commit after the other, so load makes them larger and not more \
         frequent). The others write to their disks whatever their own ack is. A disk that does not keep up makes no node \
         suspect: the 200 goes out short."),
    key("ack_timeout_ms", whole(20, 10_000), "300",
        "Longest wait for those; then the 200 goes out short, is counted, and the silent node is a suspect until it caught up."),
    key("pending_replies_max", whole(1, 16_777_216), "65536",
        "Replies that may wait for acks; a REGISTER beyond it is answered 503 before anything is written."),
    key("outbox_bytes_max", whole(MIB, 16 * KIB * MIB), "67108864",
        "Changes kept for nodes that are slow to take them; a node that falls further behind has to synchronise anew."),
    key("seed_fallback_ms", whole(100, 600_000), "3000",
        "Silence after which a starting node counts a seed, or a node that its disk remembers, as gone, so that a cluster \
         can start without it."),
    key("bootstrap_min_nodes", whole(0, 1000), "0",
        "Nodes that must see each other before a cluster of which nobody is ready may start. 0: a majority of the nodes \
         that cluster.seeds name, this one counted; 2 where they are one DNS name, 1 if there are none."),
    key("doubt_ms", whole(0, 3_600_000), "30000",
        "After losing more than half of the other nodes at once: how long an unknown AoR is answered 503 and not 404."),
    key("clock_ahead_max_s", whole(10, 7 * 24 * 3600), "3600",
        "How far the clock of a disk or of another node may be ahead of the cluster's before it is refused."),
    key("clock_skew_warn_s", whole(1, 86_400), "5",
        "A wall clock that differs from the other nodes' by more, or is set by more, is logged and named in /readyz. Contacts \
         do not go by wall clocks; logs, Date headers and certificates do."),
    key("snapshot_interval_ms", whole(50, 3_600_000), "1000",
        "Time between writes of what changed to data_dir. What all nodes at once may lose when their power fails is what \
         changed within this and the time one snapshot takes (aorta_snapshot_seconds); with ack = \"disk\" nothing that was \
         answered in full."),
    key("drain_grace_s", whole(0, 3600), "10",
        "A node that drains answers OPTIONS with 503 and serves all else for this long: more than the SBC's probe interval."),
    key("drain_timeout_s", whole(1, 24 * 3600), "60",
        "Longest time a drain may take, the grace included; then the node says what only it holds and exits non-zero."),
    key("sip.listen", Kind::List, "[\"127.0.0.1:5060\"]",
        "Where SIP is served: \"192.0.2.10:5060\" or \"[2001:db8::10]:5060\" is UDP and TCP; \"udp:192.0.2.10:5060\" or \
         \"tcp:192.0.2.10:5060\" only one of them."),
    key("sip.allow", Kind::List, "[]",
        "Networks that may speak SIP to this node, as [\"192.0.2.0/24\", \"2001:db8::/32\"]: the SBCs'. All others are dropped \
         silently and counted. Empty: loopback; a node that listens elsewhere must say."),
    key("sip.allow_any", Kind::Flag, "false",
        "Takes SIP from everybody. Whoever can send it a packet can take over any phone's calls."),
    key("sip.threads", whole(0, 1024), "0",
        "Threads that read SIP over UDP, for each address: first the one that the links run on, under load others too. 0: one a \
         core, two at least; with 1, SIP waits whenever the links are busy."),
    key("sip.udp_buffer_bytes", whole(64 * KIB, KIB * MIB), "4194304",
        "Socket buffer asked of the kernel, each way; the kernel gives no more than net.core.rmem_max and wmem_max allow."),
    key("sip.max_message_bytes", whole(1300, 65_535), "65535",
        "Longest SIP message read from a TCP connection; a longer one closes it."),
    key("sip.max_age_ms", whole(10, 60_000), "500",
        "A datagram that waited longer in the socket is dropped and counted, for its sender has long turned elsewhere \
         (RFC 3261 T1)."),
    key("sip.ack_header", Kind::Flag, "false",
        "For tests: each 200 to a REGISTER tells in `Aorta-Acks: got=2;asked=2;by=node1` how many nodes hold the change, with \
         ;short when one that serves does not, and ;partial while members are missing."),
    key("sip.tcp_connections_max", whole(1, 1_000_000), "4096",
        "TCP connections held open at a time; further ones are closed at once and counted."),
    key("sip.tcp_idle_s", whole(1, 24 * 3600), "600",
        "A TCP connection without a byte for this long is closed."),
    key("sip.tcp_message_s", whole(1, 600), "10",
        "A message begun on a TCP connection must be complete after this long, else the connection is closed."),
    key("lookup.mode", Kind::Words(&["redirect", "proxy"]), "\"redirect\"",
        "What becomes of a request for an AoR: \"redirect\" answers 302 with its contacts, for an SBC that follows them; \
         \"proxy\" is not built yet."),
    key("cluster.listen", Kind::Text, "\"\"",
        "Where the other nodes reach this one, UDP: \"10.0.0.1:7060\". Empty: no cluster, the node runs alone. They \
         send to this port from theirs and, for comparing tables, from one that their system chose."),
    key("cluster.advertise", Kind::Text, "\"\"",
        "The address it tells them, as \"10.0.0.1:7060\"; must be given when cluster.listen is 0.0.0.0 or [::]. Empty: cluster.listen."),
    key("cluster.seeds", Kind::List, "[]",
        "Some nodes, best all: [\"10.0.0.1:7060\", \"10.0.0.2:7060\", \"10.0.0.3:7060\"], this one may be among them; or one \
         DNS name that yields them all: [\"aorta.default.svc:7060\"]."),
    key("cluster.ca", Kind::Text, "\"\"",
        "Certificate of the cluster's CA, PEM. `aorta cert init` makes one."),
    key("cluster.certificate", Kind::Text, "\"\"",
        "This node's certificate, PEM: node and cluster name are bound in it. `aorta cert issue` makes one."),
    key("cluster.key", Kind::Text, "\"\"",
        "Its private key, PEM; nobody else should be able to read it."),
    key("http.listen", Kind::Text, "\"127.0.0.1:8060\"",
        "Where health, metrics and management are served. Empty: nowhere."),
    key("http.token", Kind::Text, "\"\"",
        "Management asks for this as `Authorization: Bearer`. Must be given when http.listen is not on loopback."),
    key("log.filter", Kind::Text, "\"info\"",
        "What is logged: error, warn, info, debug, trace; by room as \"info,aorta::cluster=debug\"."),
    key("log.format", Kind::Words(&["text", "json"]), "\"text\"",
        "Form of a log line: for people, or one JSON object each."),
    key("domain_aliases", Kind::Table, "{}",
        "Hosts that mean a domain: SBCs put a node's address into the Request-URI and To. One line each, as \
         \"192.0.2.10\" = \"example.com\"."),
];

/// The key of this name.
#[must_use]
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that somebody who wrote `name` most likely meant.
#[must_use]
pub(super) fn nearest(name: &str) -> Option<&'static Key> {
    let last = last_part(name);
    if let Some(elsewhere) = KEYS.iter().find(|key| last_part(key.name) == last) {
        return Some(elsewhere);
    }
    let (distance, key) = KEYS
        .iter()
        .map(|key| {
            let whole = strsim::damerau_levenshtein(key.name, name);
            let part = strsim::damerau_levenshtein(last_part(key.name), last);
            (whole.min(part + 1), key)
        })
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 + name.len() / 4).then_some(key)
}

/// Whether some key lies in a section of this name.
#[must_use]
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(section, _)| section == name))
}

fn last_part(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// The text of `deploy/aorta.example.toml`: every key with its sentence and its default.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every key of an Aorta node, each with its default. A file needs only the lines that differ.\n\
         # `aorta config check FILE` names every mistake; `aorta node --set sip.listen=192.0.2.10:5060` overrides a key.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (its_section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if its_section != section && key.kind != Kind::Table {
            section = its_section;
            let _ = write!(text, "\n[{section}]\n");
        } else {
            text.push('\n');
        }
        for line in wrapped(key.doc) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = match key.kind {
            Kind::Table => writeln!(text, "[{}]", key.name),
            _ => writeln!(text, "{name} = {}", key.default),
        };
    }
    text
}

/// Longest line of a sentence in the example file, characters.
const EXAMPLE_WIDTH: usize = 118;

fn wrapped(sentence: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= EXAMPLE_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
