//! All nodes killed at once: what they had acknowledged two snapshot intervals before is there again, and only that.

use crate::cluster::{Cluster, clean, figure};
use aorta_phones::{Fleet, Household};
use std::time::{Duration, Instant};

const SNAPSHOT: Duration = Duration::from_millis(1000);
const SEED_FALLBACK: Duration = Duration::from_millis(3000);

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_die_and_come_back_with_everything() {
    let mut cluster = Cluster::started(3, "expires_min_s = 1\nsnapshot_interval_ms = 1000\nseed_fallback_ms = 3000");
    let nodes = cluster.sips(3);
    let down = Duration::from_secs(figure(8, 30));
    let mut lasting = Fleet::new(Household::new(31), figure(10_000, 100_000));
    let mut fleeting = Fleet::new(Household { domain: "fleeting.test".to_owned(), ..Household::new(32) }, 1000);
    clean("register", &lasting.register(3600, &nodes).await.expect("sockets"));
    let seconds = u32::try_from(down.as_secs()).expect("few");
    clean("register", &fleeting.register(seconds, &nodes).await.expect("sockets"));
    // The promise: what is two snapshot intervals old survives.
    tokio::time::sleep(2 * SNAPSHOT).await;
    assert_eq!(fleeting.bound().len(), 1000, "they must lapse while the nodes are down, not before");
    (0..3).for_each(|n| cluster.kill(n));
    tokio::time::sleep(down).await;
    let begun = Instant::now();
    (0..3).for_each(|n| cluster.start(n));
    (0..3).for_each(|n| _ = cluster.ready(n, SEED_FALLBACK + Duration::from_secs(3)));
    println!("ready after {:?}", begun.elapsed());
    assert!(begun.elapsed() <= SEED_FALLBACK + Duration::from_secs(3), "ready after {:?}", begun.elapsed());
    assert!(fleeting.bound().is_empty());
    cluster.all_right(&mut lasting, &nodes).await;
    cluster.all_right(&mut fleeting, &nodes).await;
    cluster.agree(Duration::from_secs(5));
}
