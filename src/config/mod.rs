//! The one configuration: read, checked, with its defaults. Nobody else reads the file, and it decides nothing that the
//! rooms decide.
//!
//! `keys` the table of all keys · `source` TOML and `--set` to plain values · `read` each value by itself · `checks` what
//! they say together · `mistake` what is wrong and where · `bounds` how long what a phone sends may be.

pub mod bounds;
mod checks;
mod keys;
mod mistake;
mod read;
mod source;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aorta_proto::NodeId;
use ipnet::IpNet;

pub use keys::{KEYS, Key, Kind, example};
pub use mistake::{Mistake, Mistakes, Place};
use source::Source;

/// One node's configuration, checked. Fields are the keys of `deploy/aorta.example.toml`, which says what each means.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `None`: the certificate's name, or `node` without a cluster.
    pub node_id: Option<NodeId>,
    /// Folder of the snapshots; already joined to the file's folder.
    pub data_dir: PathBuf,
    /// Domains served, lower case; empty: any.
    pub domains: Vec<String>,
    /// Hosts that mean a domain, both in lower case, IPv6 addresses without brackets.
    pub domain_aliases: Vec<(String, String)>,
    /// Whether the user part's case counts.
    pub aor_case_sensitive: bool,
    /// Domain of global `tel:` numbers; `None`: not served.
    pub tel_domain: Option<String>,
    /// Live contacts an AoR may have.
    pub max_contacts_per_aor: usize,
    /// Entries an AoR may have, dead ones included.
    pub entries_per_aor_max: usize,
    /// Memory that the table may take, MB of 1 048 576 bytes; 0: no limit.
    pub memory_max_mb: u64,
    /// Shortest lifetime granted, seconds, below 3600.
    pub expires_min_s: u32,
    /// Lifetime granted when none is asked for, seconds.
    pub expires_default_s: u32,
    /// Longest lifetime granted, seconds.
    pub expires_max_s: u32,
    /// What becomes of Path in a REGISTER.
    pub path_mode: PathMode,
    /// How a redirect tells Path.
    pub path_in_redirect: PathInRedirect,
    /// 302 or 300: status of a redirect to several contacts.
    pub redirect_multiple: u16,
    /// 404 or 480: answer where no contact is live.
    pub no_binding_status: u16,
    /// User parts in OPTIONS that mean the node itself.
    pub probe_users: Vec<String>,
    /// What OPTIONS get from a node that is not ready.
    pub not_ready_options: NotReadyOptions,
    /// Retry-After in that 503, seconds.
    pub retry_after_s: u32,
    /// Who must hold a binding before its 200.
    pub ack: Ack,
    /// Longest wait for acks, milliseconds.
    pub ack_timeout_ms: u64,
    /// Replies that may wait for acks.
    pub pending_replies_max: usize,
    /// Changes kept for slow nodes, bytes.
    pub outbox_bytes_max: usize,
    /// Silence after which a starting node counts another as gone, milliseconds.
    pub seed_fallback_ms: u64,
    /// Nodes that may start a cluster of which nobody is ready; 0: a majority of the seeds.
    pub bootstrap_min_nodes: usize,
    /// How long an unknown AoR gets 503 after a great loss of nodes, milliseconds.
    pub doubt_ms: u64,
    /// How far ahead a stamp may be, seconds.
    pub clock_ahead_max_s: u32,
    /// Difference of wall clocks that is worth a word, seconds.
    pub clock_skew_warn_s: u32,
    /// Time between snapshots, milliseconds.
    pub snapshot_interval_ms: u64,
    /// How long a draining node serves on, seconds.
    pub drain_grace_s: u64,
    /// Longest drain, the grace included, seconds.
    pub drain_timeout_s: u64,
    /// What becomes of a request for an AoR.
    pub lookup_mode: LookupMode,
    /// SIP on the wire.
    pub sip: SipConfig,
    /// The other nodes; `None`: the node runs alone.
    pub cluster: Option<ClusterConfig>,
    /// Health, metrics, management.
    pub http: HttpConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// `[sip]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipConfig {
    /// Sockets to open; at least one.
    pub listen: Vec<Listen>,
    /// Networks that may talk, as written; see [`SipConfig::networks`].
    pub allow: Vec<IpNet>,
    /// Everybody may talk.
    pub allow_any: bool,
    /// Threads that read a UDP address; 0: one a core, two at least.
    pub threads: usize,
    /// Socket buffer asked for, bytes.
    pub udp_buffer_bytes: usize,
    /// Longest message over TCP, bytes.
    pub max_message_bytes: usize,
    /// Oldest datagram taken, milliseconds since the kernel received it.
    pub max_age_ms: u64,
    /// 200s to REGISTER tell their acks.
    pub ack_header: bool,
    /// TCP connections held open.
    pub tcp_connections_max: usize,
    /// Idle TCP connections are closed after this, seconds.
    pub tcp_idle_s: u64,
    /// A begun message must be complete after this, seconds.
    pub tcp_message_s: u64,
}

impl SipConfig {
    /// The networks that may talk: all with `allow_any`, loopback where none is named.
    #[must_use]
    pub fn networks(&self) -> Vec<IpNet> {
        let texts: &[&str] = if self.allow_any { &["0.0.0.0/0", "::/0"] } else { &["127.0.0.0/8", "::1/128"] };
        if !self.allow_any && !self.allow.is_empty() {
            return self.allow.clone();
        }
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// One socket of `sip.listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// UDP or TCP.
    pub transport: SipTransport,
    /// Where; port 0 lets the kernel choose.
    pub address: SocketAddr,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            SipTransport::Udp => "udp",
            SipTransport::Tcp => "tcp",
        };
        write!(f, "{transport}:{}", self.address)
    }
}

/// A transport of SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SipTransport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

/// `[cluster]`, where `cluster.listen` is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where other nodes reach this one; UDP; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The address they are told; `listen` where none is given, never a wildcard. Port 0: the port that was bound.
    pub advertise: SocketAddr,
    /// `host:port` each; a name may yield several addresses.
    pub seeds: Vec<String>,
    /// The CA's certificate, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Bearer token of management; always there beyond loopback.
    pub token: Option<String>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Form of a line.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `path_mode` (RFC 3327).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMode {
    /// Ignored.
    Off,
    /// Stored always, returned to whom supports it.
    Lazy,
    /// A Path from a phone that does not support it is refused with 420.
    Strict,
}

/// `path_in_redirect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathInRedirect {
    /// As a Route header in the Contact URI.
    Route,
    /// Not at all.
    None,
}

/// `lookup.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupMode {
    /// Answered 3xx with the contacts.
    Redirect,
    /// Relayed to the contacts. Refused until it is built.
    Proxy,
}

/// `not_ready_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReadyOptions {
    /// 503 with Retry-After.
    Unavailable,
    /// No answer.
    Silent,
}

/// `ack`: who must hold a binding before its 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Every node of the ack set.
    All,
    /// Any one of them.
    One,
    /// Nobody.
    None,
    /// All, each after its group commit. Refused until it is built.
    Disk,
}

impl Config {
    /// Reads `file`, or nothing but defaults, then the `--set` arguments (`dotted.path=value`) on top.
    ///
    /// # Errors
    /// Every mistake at once, each with its line, key, reason and way out.
    pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Self, Mistakes> {
        let text = match file.map(std::fs::read_to_string) {
            None => String::new(),
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                let why = format!("the file cannot be read: {error}");
                let list = vec![Mistake { place: Place::Default, key: String::new(), why, way_out: String::new() }];
                return Err(Mistakes { file: file.map(Path::to_path_buf), list });
            }
        };
        let base = file.and_then(Path::parent).unwrap_or(Path::new(""));
        Self::parse(&text, base, sets).map_err(|list| Mistakes { file: file.map(Path::to_path_buf), list })
    }

    /// As [`Config::load`], from a text; relative paths count from `base`.
    ///
    /// # Errors
    /// Every mistake at once, in the order of the file, those of `--set` after them.
    pub fn parse(text: &str, base: &Path, sets: &[String]) -> Result<Self, Vec<Mistake>> {
        let mut source = Source::default();
        source.read_file(text);
        for (index, argument) in sets.iter().enumerate() {
            source.read_set(index + 1, argument);
        }
        let config = read::config(&mut source, base);
        checks::check(&config, &mut source);
        if source.mistakes.is_empty() {
            return Ok(config);
        }
        source.mistakes.sort_by_key(|mistake| mistake.place);
        Err(source.mistakes)
    }

    /// What is wrong with the files that the configuration names: one sentence each.
    #[must_use]
    pub fn unreadable_files(&self) -> Vec<String> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let files =
            [("cluster.ca", &cluster.ca), ("cluster.certificate", &cluster.certificate), ("cluster.key", &cluster.key)];
        let read = |(key, path): (&str, &PathBuf)| {
            let error = std::fs::File::open(path).err()?;
            Some(format!("{key}: {} cannot be read: {error}", path.display()))
        };
        files.into_iter().filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests;
