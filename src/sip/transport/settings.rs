//! What the transports are told: addresses, who may talk, and every bound. Reads no file: who starts them builds it from
//! the configuration.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use super::Transport;
use super::tick::TICK_MS;

/// How the transports are to be run. Built from the configuration by who starts them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `sip.listen`; port 0 takes any.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// `sip.allow`: source networks that are served.
    pub allow: Vec<IpNet>,
    /// `sip.max_message_bytes`: of one message, headers and body.
    pub max_message_bytes: usize,
    /// `sip.max_age_ms`: datagrams that waited longer are dropped.
    pub max_age: Duration,
    /// `ack_timeout_ms`: half of it without a beat of a reader means that the process slept.
    pub ack_timeout: Duration,
    /// `sip.threads`: who reads each UDP address, the thread of sockets among them; 0: one a core, two at least.
    pub udp_threads: usize,
    /// `sip.udp_buffer_bytes`: asked of the kernel for each UDP socket, each way.
    pub udp_buffer_bytes: usize,
    /// TCP's own bounds.
    pub tcp: TcpSettings,
}

/// Bounds of TCP.
#[derive(Debug, Clone)]
pub struct TcpSettings {
    /// `sip.tcp_idle_s`: a connection on which no message or ping was completed for so long is closed.
    pub idle: Duration,
    /// `sip.tcp_message_s`: a message must be complete so long after its first byte, or the connection is closed.
    pub partial: Duration,
    /// `sip.tcp_connections_max`: connections in all, accepted and dialled.
    pub connections_max: usize,
    /// Connections of one source address: one peer must not take all seats.
    pub connections_per_source_max: usize,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            partial: Duration::from_secs(10),
            connections_max: 4_096,
            connections_per_source_max: 1_024,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            allow: loopback(),
            max_message_bytes: 65_535,
            max_age: Duration::from_millis(500),
            ack_timeout: Duration::from_millis(300),
            udp_threads: 0,
            udp_buffer_bytes: 4 << 20,
            tcp: TcpSettings::default(),
        }
    }
}

impl Settings {
    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&peer))
    }

    /// Two at least, unless somebody asked for one: the first may be held up.
    pub(super) fn readers_per_port(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        if self.udp_threads > 0 { self.udp_threads } else { cores().max(2) }
    }

    pub(super) fn sleep_limit_us(&self) -> u64 {
        // Below two ticks an idle reader's own wait would be called a sleep.
        micros(self.ack_timeout / 2).max(2 * TICK_MS * 1000)
    }
}

/// The networks that are allowed when no other is named: 127.0.0.0/8 and ::1.
fn loopback() -> Vec<IpNet> {
    let nets = [(IpAddr::from([127, 0, 0, 0]), 8), (IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128)];
    nets.into_iter().filter_map(|(addr, bits)| IpNet::new(addr, bits).ok()).collect()
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
