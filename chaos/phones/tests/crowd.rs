//! The crowd against doubles: a sound registrar is never accused, whatever is lost on the way; each lie is found.

#[allow(dead_code, reason = "each test file plants its own faults")]
mod double;

use aorta_phones::crowd::{Crowd, CrowdPlan, Deed, Fault as Finds, Running, Tally};
use double::{Double, Fault, Table};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait for anything here; a busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(100);

fn plan(phones: usize, seed: u64) -> CrowdPlan {
    let mut plan = CrowdPlan::new(phones, seed);
    (plan.per_second, plan.calls_per_second) = (800, 400);
    (plan.short_lived_percent, plan.short_expires_s) = (10, 1);
    plan.second_phone_percent = 20;
    plan.fill_window = 16;
    plan.patience.t1 = Some(Duration::from_millis(100));
    plan.patience.attempt = Duration::from_millis(300);
    plan.patience.whole = Duration::from_millis(1500);
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_registrar_is_never_accused() {
    let (doubles, addresses) = Double::cluster(3).await;
    let mut crowd = Crowd::new(plan(1500, 7)).await.expect("a crowd");
    let filled = crowd.fill(&addresses).await.expect("sockets");
    assert_eq!((filled.full, filled.registers(), filled.storming), (1500, 1500, 0), "{filled:?}");
    let running = crowd.start(&addresses).await.expect("sockets");
    for (node, fault) in [
        (0, Fault::LoseReply(10)),
        (1, Fault::LoseRequest(7)),
        (2, Fault::Silent),
        (2, Fault::NotReady),
        (2, Fault::Short),
        (1, Fault::None),
    ] {
        doubles[node].set(fault);
        let before = running.tally();
        running
            .until("at work", PATIENCE, |now| {
                now.registers() > before.registers() + 600 && now.calls > before.calls + 300
            })
            .await
            .expect("in time");
    }
    doubles.iter().for_each(|double| double.set(Fault::None));
    let done = running.until("every deed done", PATIENCE, |now| {
        Deed::ALL.iter().all(|deed| now.begun.get(deed).is_some_and(|n| *n > 3))
    });
    let done = done.await.expect("in time");
    assert!(done.lapses.before > 20 && done.lapses.after > 20, "{:?}", done.lapses);
    assert!(done.failovers > 100 && done.retransmitted > 10 && done.short > 100, "{done:?}");

    running.storm();
    running
        .until("over the storm", PATIENCE, |now| now.storming == 0 && now.registers() > done.registers() + 1500)
        .await
        .expect("in time");
    let mut crowd = running.stop().await.expect("sockets");
    let tally = crowd.tally();
    assert_eq!((tally.lapses.early, tally.lapses.late), (0, 0));
    let accused = [&tally.lost, &tally.lost_after_short, &tally.ghosts, &tally.ghosts_after_short, &tally.wrong];
    assert_eq!(accused.map(|found| found.count), [0; 5], "{accused:?}");
    assert_eq!(tally.calls_completed, tally.calls, "{:?}", tally.calls_failed);
    assert!(crowd.malformed().is_empty() && crowd.edge().complaints().is_empty(), "{:?}", crowd.malformed());
    assert_eq!(tally.timeouts + tally.refused.values().sum::<u64>(), 0, "somebody always answered: {tally:?}");
    let judgement = crowd.judge(&addresses).await.expect("sockets");
    assert!(judgement.is_clean() && judgement.bound > 3 * 1000, "{judgement:?}");
    assert_eq!(judgement.asked, judgement.right);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_be_accused_while_nobody_answers() {
    let (doubles, addresses) = Double::cluster(2).await;
    let mut crowd = Crowd::new(plan(600, 8)).await.expect("a crowd");
    crowd.fill(&addresses).await.expect("sockets");
    let running = crowd.start(&addresses).await.expect("sockets");
    for fault in [Fault::LoseReply(1), Fault::LoseRequest(1)] {
        doubles.iter().for_each(|double| double.set(fault));
        let before = running.tally();
        running.until("given up", PATIENCE, |now| now.timeouts > before.timeouts + 100).await.expect("in time");
    }
    doubles.iter().for_each(|double| double.set(Fault::None));
    let unheard = running.tally();
    assert!(unheard.unsure > 50, "{unheard:?}");
    running
        .until("heard again", PATIENCE, |now| now.full > unheard.full + 1000 && now.calls > unheard.calls + 300)
        .await
        .expect("in time");
    let mut crowd = running.stop().await.expect("sockets");
    let tally = crowd.tally();
    assert_eq!(tally.lost.count + tally.ghosts.count + tally.wrong.count, 0, "{tally:?}");
    let judgement = crowd.judge(&addresses).await.expect("sockets");
    assert!(judgement.is_clean(), "{judgement:?}");
}

fn all(doubles: &[Double]) -> Vec<std::net::SocketAddr> {
    doubles.iter().map(|double| double.address).collect()
}

/// A crowd at three doubles of which one lies; what it saw until it saw enough.
async fn with_lie(fault: Fault, enough: impl Fn(&Tally) -> bool) -> (Crowd, Tally, Vec<Double>) {
    let (doubles, addresses) = Double::cluster(3).await;
    let mut crowd = Crowd::new(plan(500, 9)).await.expect("a crowd");
    crowd.fill(&addresses).await.expect("sockets");
    let running = crowd.start(&addresses).await.expect("sockets");
    doubles[1].set(fault);
    let seen = running.until("found out", PATIENCE, enough).await.expect("in time");
    let crowd = running.stop().await.expect("sockets");
    (crowd, seen, doubles)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_binding_is_found() {
    let (mut crowd, seen, doubles) = with_lie(Fault::Forget(5), |now| now.lost.count > 3).await;
    let found = &seen.lost.examples[0];
    assert!(found.told.is_some_and(|told| told.full && told.by == doubles[1].address), "{found:?}");
    let judgement = crowd.judge(&all(&doubles)).await.expect("sockets");
    assert!(judgement.count(Finds::Missing) > 3 && !judgement.is_clean(), "{judgement:?}");
    let excused = judgement.clone().excused(|_, told| told.is_some_and(|told| told.by == doubles[1].address));
    assert!(excused.excused > 3 && excused.excused <= judgement.findings.len() as u64, "{excused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_short_200_forgets_is_told_apart() {
    let (_, seen, doubles) = with_lie(Fault::ShortForget(3), |now| now.lost_after_short.count > 3).await;
    assert!(seen.short > 10, "{seen:?}");
    assert!(
        seen.lost_after_short.examples.iter().all(|found| found.told.is_some_and(|told| told.by == doubles[1].address))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_and_a_lapsed_contact_are_found() {
    let (_, seen, _) = with_lie(Fault::Keep, |now| now.ghosts.count > 3 && now.wrong.count > 0).await;
    assert!(seen.ghosts.examples[0].told.is_some_and(|told| told.deed != Deed::Register), "{seen:?}");
    assert!(seen.wrong.examples.iter().all(|found| found.what.contains(" is left")), "{:?}", seen.wrong);
    let (mut crowd, seen, doubles) = with_lie(Fault::Immortal, |now| now.ghosts.count > 3).await;
    assert_eq!(seen.lost.count, 0, "{seen:?}");
    let judgement = crowd.judge(&all(&doubles)).await.expect("sockets");
    assert!(judgement.count(Finds::Ghost) > 0, "{judgement:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_lapses_early_or_late_is_found_by_the_phones_own_clock() {
    let (_, seen, doubles) = with_lie(Fault::Hasty, |now| now.lapses.early > 3).await;
    assert!(seen.lost.count >= seen.lapses.early && seen.lapses.late == 0, "{seen:?}");
    let lost = &seen.lost.examples;
    assert!(lost.iter().all(|found| found.node == doubles[1].address && found.what.contains("ms left")), "{lost:?}");
    let (_, seen, _) = with_lie(Fault::Immortal, |now| now.lapses.late > 3).await;
    assert!(seen.ghosts.count >= seen.lapses.late && seen.lapses.early == 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_contacts_and_lost_paths_are_found() {
    for fault in [Fault::WrongPort, Fault::DropPath, Fault::AlterQ] {
        let (_, seen, doubles) = with_lie(fault, |now| now.wrong.count > 3).await;
        assert!(seen.wrong.examples.iter().all(|found| found.node == doubles[1].address), "{:?}", seen.wrong);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_with_a_table_of_its_own_is_missing_everything() {
    let (_doubles, mut addresses) = Double::cluster(2).await;
    let mut plan = plan(400, 10);
    plan.short_lived_percent = 0;
    let mut crowd = Crowd::new(plan).await.expect("a crowd");
    crowd.fill(&addresses).await.expect("sockets");
    let other = Double::start(&Arc::new(Mutex::new(Table::default())), Fault::None).await;
    addresses.push(other.address);
    let judgement = crowd.judge(&addresses).await.expect("sockets");
    assert_eq!(judgement.count(Finds::Missing), 400, "{judgement:?}");
    assert!(judgement.findings.iter().all(|finding| finding.seen.node == other.address));
    assert_eq!(judgement.bound, 1200);
    other.set(Fault::NotReady);
    let judgement = crowd.judge(&addresses).await.expect("sockets");
    assert_eq!(judgement.asked - judgement.right, judgement.count(Finds::Unanswered), "{judgement:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_and_rates_change_under_load() {
    let (_doubles, addresses) = Double::cluster(3).await;
    let mut crowd = Crowd::new(plan(300, 11)).await.expect("a crowd");
    crowd.fill(&addresses[..2]).await.expect("sockets");
    let running = crowd.start(&addresses[..1]).await.expect("sockets");
    running.set_nodes(&addresses[1..]).expect("loopback");
    let told_by_third = |running: &Running| running.is_up(addresses[2]) && !running.is_up(addresses[0]);
    let before = running.tally();
    running
        .until("at the third", PATIENCE, |now| now.full > before.full + 300 && told_by_third(&running))
        .await
        .expect("in time");
    running.hold();
    let held = running.until("at rest", PATIENCE, |_| running.open() == 0).await.expect("in time");
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..5 {
        looks.tick().await;
        let now = running.tally();
        assert_eq!((now.registers(), now.calls, running.open()), (held.registers(), held.calls, 0));
    }
    running.go_on();
    running.until("going on", PATIENCE, |now| now.full > held.full + 300).await.expect("in time");
    let after = running.tally();
    let since = after.latency.since(&held.latency);
    assert!(since.quantile(0.5) < Duration::from_millis(150), "the hold counts for no latency: {since:?}");
    assert_eq!(after.not_made, held.not_made);
    running.set_rates(0, 0);
    let quiet = running.until("at rest", PATIENCE, |_| running.open() == 0).await.expect("in time");
    running.set_rates(500, 0);
    running.until("at work again", PATIENCE, |now| now.full > quiet.full + 100).await.expect("in time");
    running.stop().await.expect("sockets");
}
