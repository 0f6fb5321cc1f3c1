//! A change read where it lies is the change that is read out of it.

use aorta_proto::frame::{change_aor, decode_change, decode_refresh, encode_changes};
use aorta_proto::{Record, Refresh};
use proptest::prelude::*;

use super::samples::any_record;

fn encoded(record: &Record) -> Box<[u8]> {
    encode_changes("a@x", record).expect("fits").remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_delta_of_one_registered_contact_and_no_other_is_a_refresh(record in any_record()) {
        let bytes = encoded(&record);
        let one = record.cleared.is_none() && record.entries.len() == 1 && record.entries[0].binding().is_some();
        let read = decode_refresh(&bytes);
        prop_assert_eq!(read.is_some(), one);
        prop_assert_eq!(&read, &Refresh::of(&record).map(|refresh| ("a@x", refresh)));
        if let Some((_, refresh)) = read {
            prop_assert_eq!(Some(refresh.lapses_us()), record.entries[0].lapses_us());
        }
    }

    #[test]
    fn what_is_no_change_is_no_refresh(record in any_record(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), cut in 0_usize..4) {
        let mut bytes = encoded(&record).into_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(1)));
        let read = decode_change(&bytes);
        if let Ok((of, _)) = &read {
            prop_assert_eq!(change_aor(&bytes).ok(), Some(*of));
        }
        if let Some((aor, refresh)) = decode_refresh(&bytes) {
            let (of, record) = read.as_ref().expect("a change");
            prop_assert_eq!((*of, Refresh::of(record)), (aor, Some(refresh)));
        }
    }
}
