//! Two nodes that are not linked and join at once do not both begin: neither would await the other. Whole cores without
//! sockets; that cuts end in one of the two serving is judged by the simulator, too.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use replication_bench::Bench;

/// n1 and n2 have lost each other and both gave way; gossip has told each of them, and brings them no news since.
fn two_that_both_gave_way() -> Bench {
    let mut bench = Bench::of_three();
    bench.unlink("n1", "n2");
    for name in ["n1", "n2"] {
        let effects = bench.core(name).slept(1_000_000, bench.now(name));
        bench.take(name, effects);
    }
    for name in ["n1", "n2"] {
        bench.hears_no_news(name);
    }
    bench
}

#[test]
fn the_smaller_begins_and_the_other_waits_for_their_link() {
    let mut bench = two_that_both_gave_way();
    bench.pass(900_000);
    assert!(bench.is_ready("n1"), "{}", bench.reason("n1"));
    assert!(bench.reason("n2").contains("lets n1 begin first"), "{}", bench.reason("n2"));
    bench.hears_again("n1");
    bench.hears_again("n2");
    bench.pass(2_000_000);
    assert!(bench.reason("n2").contains("waits for a link to n1"), "{}", bench.reason("n2"));
    // n1 finds out that n2 does not ack.
    bench.register("n1", 9);
    bench.pass(1_000_000);
    assert_eq!(bench.released("n1"), [(9, true)]);
    for (phone, name) in ["n1", "n3"].into_iter().enumerate() {
        bench.register(name, phone as u32);
        bench.pass(10_000);
        assert_eq!(bench.released(name), [(phone as u32, false)], "all who serve hold it");
    }
    bench.link_two("n1", "n2");
    bench.pass(500_000);
    assert!(bench.is_ready("n2"), "{}", bench.reason("n2"));
    assert!(bench.knows("n2", 0) && bench.knows("n2", 1));
}

#[test]
fn one_that_stays_a_joiner_keeps_nobody_from_serving() {
    let mut bench = two_that_both_gave_way();
    bench.unlink("n1", "n3");
    bench.pass(1_200_000);
    assert!(!bench.is_ready("n1") && bench.is_ready("n2"), "{} {}", bench.reason("n1"), bench.reason("n2"));
}

#[test]
fn of_two_that_began_before_either_could_hear_of_it_the_greater_gives_way() {
    let mut bench = two_that_both_gave_way();
    bench.pass(10_000);
    bench.unlink("n1", "n3");
    bench.pass(1_100_000);
    bench.link_two("n1", "n3");
    bench.pass(400_000);
    assert!(bench.is_ready("n1") && bench.is_ready("n2"), "{} {}", bench.reason("n1"), bench.reason("n2"));
    bench.hears_again("n1");
    bench.hears_again("n2");
    bench.pass(100_000);
    assert!(bench.is_ready("n1"), "{}", bench.reason("n1"));
    assert!(bench.reason("n2").contains("waits for a link to n1"), "{}", bench.reason("n2"));
}
