//! What is merged into a record of column `Recency`: uses of an entry, noted without reading what stands there.
//!
//! Values are as all records are, with a CRC-32C behind; numbers are big-endian.
//!
//! | field | as |
//! |---|---|
//! | id of the entry that was used | u64 |
//! | seconds since 1970, times | u64, u32 |
//! | bytes it has by now, if that is known | maybe u64 |
//! | mean idle time in seconds by which earlier uses fade; 0: they do not | the bits of an f64 |
//!
//! The id says whether the entry still stands there: uses of one that was replaced count for nothing, and of one that is gone an
//! empty value is left, which is no record (merging cannot remove).

use super::{Decoder, Encoder, RecencyRecord};
use crate::cache::worth::{Pace, Use};

/// Uses of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uses {
    /// Of which entry.
    pub id: u64,
    /// Seconds since 1970.
    pub now: u64,
    /// How many.
    pub times: u32,
    /// Bytes, where they are known.
    pub size: Option<u64>,
    /// Mean idle time, in seconds (`Pace::idle_seconds`).
    pub idle_seconds: f64,
}

impl Uses {
    /// Writes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(self.id);
        out.u64(self.now);
        out.u32(self.times);
        out.maybe(self.size, Encoder::u64);
        out.u64(self.idle_seconds.to_bits());
        out.finish()
    }

    /// Reads.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut from = Decoder::checked(record)?;
        let read = Self {
            id: from.u64()?,
            now: from.u64()?,
            times: from.u32()?,
            size: from.maybe(Decoder::u64)?,
            idle_seconds: f64::from_bits(from.u64()?),
        };
        from.end(read)
    }

    /// Adds them to what is known of the entry; of another one it stays as it is.
    pub fn add_to(&self, record: &mut RecencyRecord) {
        if record.id != self.id {
            return;
        }
        let Use { last_use, uses, .. } =
            record.of_use().again(self.times, self.now, &Pace::of_idle_seconds(self.idle_seconds));
        (record.last_use, record.uses) = (last_use, uses);
        record.size = self.size.unwrap_or(record.size);
    }
}

/// A record after uses were merged into it, in order; empty where there is none. What cannot be read stays as it is, for who
/// reads it next to see.
pub fn merge<'a>(record: Option<&[u8]>, uses: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let Some(stands) = record.filter(|record| !record.is_empty()) else { return Vec::new() };
    let Some(mut record) = RecencyRecord::decode(stands) else { return stands.to_vec() };
    uses.filter_map(Uses::decode).for_each(|uses| uses.add_to(&mut record));
    record.encode()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::worth::ONE_USE;

    fn record(id: u64) -> RecencyRecord {
        RecencyRecord { last_use: 1000, uses: ONE_USE, size: 7, id, is_error: true, full_key: b"a.test\0/".to_vec() }
    }

    fn uses(id: u64) -> Uses {
        Uses { id, now: 1399, times: 2, size: None, idle_seconds: 100.0 }
    }

    fn merged(record: &RecencyRecord, uses: &[Uses]) -> RecencyRecord {
        let uses: Vec<_> = uses.iter().map(Uses::encode).collect();
        RecencyRecord::decode(&merge(Some(&record.encode()), uses.iter().map(Vec::as_slice))).expect("it is a record")
    }

    #[test]
    fn uses_count_for_the_entry_that_stands_there_alone() {
        // Four idle times later half of a use is left.
        let after = RecencyRecord { last_use: 1399, uses: ONE_USE / 2 + 2 * ONE_USE, ..record(3) };
        assert_eq!(merged(&record(3), &[uses(3)]), after);
        assert_eq!(merged(&record(3), &[uses(2), uses(3), uses(4)]), after);
        assert_eq!(merged(&record(3), &[Uses { size: Some(9), ..uses(3) }]), RecencyRecord { size: 9, ..after });
        assert_eq!(merged(&record(3), &[uses(2)]), record(3));
    }

    #[test]
    fn of_an_entry_that_is_gone_nothing_is_left_and_what_is_damaged_is_not_mended() {
        let uses = uses(3).encode();
        for gone in [None, Some(&[][..])] {
            assert_eq!(merge(gone, [uses.as_slice()].into_iter()), b"");
        }
        assert_eq!(merge(Some(b"damaged"), [uses.as_slice()].into_iter()), b"damaged");
        let stands = record(3).encode();
        assert_eq!(merge(Some(&stands), [&b"damaged"[..], &[]].into_iter()), stands);
    }

    proptest! {
        #[test]
        fn uses_are_read_as_they_were_written(
            id in any::<u64>(), now in any::<u64>(), times in any::<u32>(), size in any::<Option<u64>>(), idle in any::<f64>(),
        ) {
            let uses = Uses { id, now, times, size, idle_seconds: idle };
            let written = uses.encode();
            prop_assert_eq!(Uses::decode(&written).map(|read| read.encode()), Some(written.clone()));
            prop_assert_eq!(Uses::decode(&written[..written.len() - 1]), None);
        }

        /// Whatever lies in a column, and in whatever portions: merging neither panics nor changes what it comes to.
        #[test]
        fn merging_in_two_steps_is_merging_in_one(
            all in prop::collection::vec((0..3u64, any::<u64>(), any::<u32>(), any::<Option<u64>>(), any::<f64>()), 0..6),
            at in any::<prop::sample::Index>(),
            stands in prop::option::of(prop::collection::vec(any::<u8>(), 0..60)),
        ) {
            let uses = |(id, now, times, size, idle_seconds)| Uses { id, now, times, size, idle_seconds }.encode();
            let all: Vec<_> = all.into_iter().map(uses).collect();
            let (first, second) = all.split_at(at.index(all.len() + 1));
            let by = |record: Option<&[u8]>, uses: &[Vec<u8>]| merge(record, uses.iter().map(Vec::as_slice));
            for stands in [Some(record(1).encode()), stands] {
                let stands = stands.as_deref();
                prop_assert_eq!(by(Some(&by(stands, first)), second), by(stands, &all));
            }
        }
    }
}
