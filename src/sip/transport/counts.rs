//! What the transports count. Plain atomics, one sheet a reading thread, so that hot threads share no cache line; who
//! wants totals adds the sheets up. Names and help texts of the metrics are in `metrics`, not here.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Totals since the start, as read at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct TransportCounts {
            $($(#[$doc])* pub $name: u64,)+
        }

        /// One writer's counters; aligned so that two sheets never share a cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(super) struct Sheet {
            $(pub(super) $name: AtomicU64,)+
        }

        impl Sheet {
            pub(super) fn add_to(&self, totals: &mut TransportCounts) {
                $(totals.$name += self.$name.load(Ordering::Relaxed);)+
            }
        }
    };
}

counts! {
    /// Datagrams given to the service.
    udp_messages,
    /// Messages given to the service that came over TCP.
    tcp_messages,
    /// Datagrams and connections from addresses outside `sip.allow`.
    dropped_not_allowed,
    /// Datagrams that waited in the socket longer than `sip.max_age_ms`.
    dropped_aged,
    /// Datagrams longer than `sip.max_message_bytes`.
    dropped_too_large,
    /// Datagrams that hold no message: keep-alives of line ends or zeros, empty ones.
    dropped_empty,
    /// Messages that made the service panic; a bug, and said as an error.
    dropped_panicked,
    /// Datagrams that the kernel dropped because a socket's buffer was full.
    udp_socket_drops,
    /// Replies handed to the kernel or to a connection's queue.
    replies_sent,
    /// Replies that could not be sent.
    replies_failed,
    /// TCP connections accepted.
    tcp_accepted,
    /// TCP connections refused because of a bound on connections.
    tcp_refused,
    /// TCP connections open now, accepted or dialled.
    tcp_open,
    /// TCP connections dialled for a reply whose own connection was gone (RFC 3261 §18.2.2).
    tcp_dialled,
    /// TCP connections closed because they were idle, or slow to finish a message.
    tcp_timed_out,
    /// TCP connections closed because the peer did not read its replies.
    tcp_slow_reader,
    /// TCP connections closed because their bytes could not be framed as messages.
    tcp_unframed,
    /// TCP connections closed because their bytes may have waited while the process slept.
    tcp_aged,
    /// How often a thread noticed that the process slept.
    sleeps,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
