//! How much may be under way on a connection: what CUBIC (RFC 9438) says, and never less than [`LEAST_BYTES`].
//!
//! CUBIC's window shrinks with each loss and grows only while it holds somebody up, so that a link with little to say and
//! some loss ends at two packets. Where both are lost nothing more may leave by which the receiver would miss them: all that
//! comes after waits for a timer, which doubles each time. Measured with 5 % of packets lost each way and a message each
//! millisecond (2026-11): the longest wait for an ack was 187 ms, and 16 ms with this.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Bytes that may be sent before the first ack of a connection, and be under way until there is a loss. QUIC's usual 14 KB a
/// round trip are plenty where that is short, so they never grow; where it then becomes long, what a loaded node writes in one
/// has to fit. More would lie for seconds before what matters on a link of 1 Mbit/s.
const FIRST_WINDOW_BYTES: u64 = 64 * 1024;

/// Bytes that may be under way whatever was lost: some ten packets of an Ethernet, an eighth of a second on a link of 1 Mbit/s.
const LEAST_BYTES: u64 = 16 * 1024;

/// Makes the controller of each connection.
#[derive(Debug)]
pub(super) struct Congestion(Arc<CubicConfig>);

impl Congestion {
    pub(super) fn new() -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(FIRST_WINDOW_BYTES);
        Self(Arc::new(cubic))
    }
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bounded(Arc::clone(&self.0).build(now, current_mtu)))
    }
}

/// CUBIC, bounded from below.
struct Bounded(Box<dyn Controller>);

impl Controller for Bounded {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.0.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window().max(LEAST_BYTES)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PACKET_BYTES: u16 = 1452;

    /// The window after so many losses, a second from one another; the last `persistent` of them with all that was under way.
    fn window(losses: u32, persistent: u32) -> u64 {
        let begun = Instant::now();
        let mut controller = Arc::new(Congestion::new()).build(begun, PACKET_BYTES);
        for nth in 1..=losses {
            let now = begun + Duration::from_secs(nth.into());
            controller.on_congestion_event(now, now, nth > losses - persistent, PACKET_BYTES.into());
        }
        assert_eq!(controller.metrics().congestion_window, controller.window());
        assert_eq!(controller.clone_box().window(), controller.window());
        controller.window()
    }

    #[test]
    fn the_window_shrinks_with_losses_and_stays_above_its_least() {
        assert_eq!(window(0, 0), FIRST_WINDOW_BYTES);
        assert!((LEAST_BYTES + 1..FIRST_WINDOW_BYTES).contains(&window(2, 0)), "{}", window(2, 0));
        assert_eq!(window(100, 0), LEAST_BYTES);
        assert_eq!(window(1, 1), LEAST_BYTES);
        assert_eq!(window(100, 100), LEAST_BYTES);
    }

    #[test]
    fn packets_larger_than_that_go_two_at_a_time() {
        let mut controller = Arc::new(Congestion::new()).build(Instant::now(), u16::MAX);
        let now = Instant::now() + Duration::from_secs(1);
        controller.on_congestion_event(now, now, true, 0);
        assert_eq!(controller.window(), 2 * u64::from(u16::MAX));
    }
}
