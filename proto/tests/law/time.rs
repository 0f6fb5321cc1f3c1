//! What time does to copies: lapsing, slimming and forgetting change nothing that counts, whenever each node does it.

use aorta_proto::record::{floor_us, horizon_us};
use aorta_proto::{ContactKey, Record, Value};
use proptest::prelude::*;

use crate::samples::{
    SECOND_US, URIS, any_record, deltas, entry_of, forgotten, honest_entries, live_keys, merged, slimmed, sum_of,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn slimming_before_or_after_a_merge_is_the_same(a in any_record(), b in any_record(), at in 10_u64..40) {
        let lapsed_us = at * SECOND_US;
        let whole = merged([&a, &b]);
        let after = slimmed(&whole, lapsed_us);
        prop_assert_eq!(&slimmed(&merged([&slimmed(&a, lapsed_us), &b]), lapsed_us), &after);
        prop_assert_eq!(&slimmed(&merged([&slimmed(&a, lapsed_us), &slimmed(&b, lapsed_us)]), lapsed_us), &after);
        prop_assert_eq!(sum_of(&after), sum_of(&whole));
        for now_us in [lapsed_us, lapsed_us + SECOND_US] {
            prop_assert_eq!(live_keys(&after, now_us), live_keys(&whole, now_us));
        }
    }

    #[test]
    fn forgetting_before_or_after_a_merge_is_the_same(a in any_record(), b in any_record(), at in 0_u64..50) {
        let floor_us = at * SECOND_US;
        let after = forgotten(&merged([&a, &b]), floor_us);
        prop_assert_eq!(&merged([&forgotten(&a, floor_us), &forgotten(&b, floor_us)]), &after);
        prop_assert_eq!(&forgotten(&merged([&forgotten(&a, floor_us), &b]), floor_us), &after);
        prop_assert!(after.oldest().is_none_or(|stamp| stamp.time_us > floor_us));
    }

    #[test]
    fn nodes_that_slim_at_different_times_show_and_digest_the_same(
        a in any_record(), b in any_record(), one in 10_u64..40, two in 10_u64..40,
    ) {
        let whole = merged([&a, &b]);
        let (at_one, at_two) = (slimmed(&whole, one * SECOND_US), slimmed(&whole, two * SECOND_US));
        let now_us = one.max(two) * SECOND_US;
        for copy in [&at_one, &at_two, &merged([&at_one, &at_two]), &merged([&at_two, &at_one])] {
            prop_assert_eq!(live_keys(copy, now_us), live_keys(&whole, now_us));
            prop_assert_eq!(sum_of(copy), sum_of(&whole));
        }
    }

    #[test]
    fn nodes_with_different_floors_agree_once_both_have_the_higher_one(
        a in any_record(), b in any_record(), c in any_record(), one in 0_u64..50, two in 0_u64..50,
    ) {
        let (floor_one, floor_two) = (one * SECOND_US, two * SECOND_US);
        let higher = floor_one.max(floor_two);
        // Each heard two of three, forgets by its floor, and hears what the other kept.
        let (at_one, at_two) = (forgotten(&merged([&a, &b]), floor_one), forgotten(&merged([&b, &c]), floor_two));
        let expected = forgotten(&merged([&a, &b, &c]), higher);
        prop_assert_eq!(&forgotten(&merged([&at_one, &at_two]), higher), &expected);
        prop_assert_eq!(&merged([&forgotten(&at_one, higher), &forgotten(&at_two, higher)]), &expected);
        prop_assert_eq!(forgotten(&forgotten(&a, floor_one), higher), forgotten(&a, higher), "floors only rise");
    }

    #[test]
    fn nothing_that_was_hidden_outlives_what_hid_it(
        a in deltas(honest_entries()), b in deltas(honest_entries()), at in 0_u64..50,
    ) {
        let whole = merged([&a, &b]);
        let left = forgotten(&whole, at * SECOND_US);
        for before in [&a, &b] {
            for entry in &before.entries {
                let key = |copy: &Record| copy.entry(&entry.key).map(|entry| entry.stamp);
                let hidden = key(&whole) > Some(entry.stamp)
                    || whole.cleared.is_some_and(|cleared| entry.stamp < cleared.stamp)
                    || whole.is_shadowed(entry);
                // Whoever still has it gives it back after all that is known here was forgotten.
                let back = forgotten(&merged([&left, &entry.clone().into()]), at * SECOND_US);
                let shown = back.live(0).any(|live| live.key == entry.key && live.stamp == entry.stamp);
                prop_assert!(!(hidden && shown), "{entry:?} came back");
            }
        }
    }

    #[test]
    fn what_a_floor_forgets_has_lapsed_by_every_clock(
        now_s in 20_000_u64..2_000_000_000, expires_max_s in 60_u32..10_000, ahead_s in 0_u32..4000, granted in any::<u32>(),
    ) {
        let now_us = now_s * SECOND_US + 123_456;
        let floor_us = floor_us(now_us, horizon_us(expires_max_s, ahead_s));
        let granted_us = u64::from(granted % (expires_max_s + 1)) * SECOND_US;
        // A node that is as far behind as is allowed has not reached the floor's own time yet, and still agrees.
        let slowest_us = now_us - u64::from(ahead_s) * SECOND_US;
        prop_assert!(floor_us + granted_us < slowest_us);
    }
}

#[test]
fn lapsing_is_exact() {
    let record = Record::from(entry_of(ContactKey::uri(URIS[0]), 10, Some(60)));
    assert_eq!(record.live(70 * SECOND_US - 1).count(), 1);
    assert_eq!(record.live(70 * SECOND_US).count(), 0);
    assert_eq!(slimmed(&record, 70 * SECOND_US - 1), record);
    assert_eq!(slimmed(&record, 70 * SECOND_US).entries[0].value, Value::Gone);
}

#[test]
fn the_floor_moves_in_steps_and_keeps_every_lifetime() {
    use aorta_proto::record::FLOOR_STEP_US;
    let horizon = horizon_us(3600, 3600);
    assert_eq!(horizon, 7260 * SECOND_US);
    let now_us = 1_700_000_000_123_456;
    assert_eq!(floor_us(now_us, horizon) % FLOOR_STEP_US, 0);
    assert!((horizon..horizon + FLOOR_STEP_US).contains(&(now_us - floor_us(now_us, horizon))));
    assert_eq!(floor_us(5, horizon), 0);
}
