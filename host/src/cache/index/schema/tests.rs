use proptest::prelude::*;

use super::*;

fn head() -> impl Strategy<Value = EntryHead> {
    let millis = || any::<u32>().prop_map(|ms| Duration::from_millis(ms.into()));
    let name = || prop::sample::select(vec!["accept", "x-a", "etag", "content-type", "accept-language"]);
    let fields = || {
        prop::collection::vec((name(), "[ -~]{0,20}"), 0..6).prop_map(|fields| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_str(&value).expect("visible characters"));
            }
            headers
        })
    };
    let status =
        || (200u16..600).prop_map(|status| StatusCode::from_u16(status).expect("within the range of statuses"));
    let as_sent = (status(), fields()).prop_map(|(status, headers)| Box::new(AsSent { status, headers }));
    (
        (status(), fields(), any::<[u64; 3]>(), millis(), prop::option::of(millis()), prop::option::of(millis())),
        (any::<[bool; 4]>(), prop::collection::vec(name(), 0..3), prop::collection::vec(".{0,9}", 0..4)),
        (".{0,20}", prop::option::of(".{0,20}"), prop::option::of(any::<u64>()), prop::option::of(as_sent)),
    )
        .prop_map(
            |((status, headers, numbers, lifetime, swr, sie), (flags, vary, tags), (path, origin, size, as_sent))| {
                EntryHead {
                    status,
                    headers,
                    timing: Timing {
                        request_at: Timestamp::from_millis(numbers[0]),
                        response_at: Timestamp::from_millis(numbers[1]),
                        initial_age: lifetime,
                    },
                    retention: Retention {
                        lifetime,
                        no_cache: flags[0],
                        must_revalidate: flags[1],
                        s_maxage: flags[3],
                        stale_while_revalidate: swr,
                        stale_if_error: sie,
                    },
                    vary: VaryFields(vary.into_iter().map(HeaderName::from_static).collect()),
                    tags,
                    sequence: PurgeSequence(numbers[2]),
                    request_path: path,
                    origin_path: origin.map(Into::into),
                    size,
                    sliceable: flags[2],
                    as_sent,
                }
            },
        )
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written(
        head in head(),
        id in any::<u64>(),
        inline in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
        (there, variants) in (any::<bool>(), prop::collection::vec(any::<RecencyKey>(), 0..4)),
    ) {
        let field_sets = vec![head.vary.clone(), VaryFields::default()];
        let stored = StoredEntry { id, key_length: 9, head, inline: inline.map(Bytes::from) };
        let record = EntryRecord { field_sets, entry: there.then_some(stored), variants };
        let read = EntryRecord::decode(&record.encode()).expect("what was written is readable");
        prop_assert_eq!(format!("{record:?}"), format!("{read:?}"));
    }

    #[test]
    fn a_flipped_bit_or_a_cut_makes_a_record_unreadable(head in head(), place in any::<prop::sample::Index>(), bit in 0..8u8) {
        let entry = Some(StoredEntry { id: 7, key_length: 9, head, inline: None });
        let mut record = EntryRecord { field_sets: vec![], entry, variants: vec![] }.encode();
        let place = place.index(record.len());
        prop_assert!(EntryRecord::decode(&record[..place]).is_none());
        record[place] ^= 1 << bit;
        prop_assert!(EntryRecord::decode(&record).is_none());
    }

    #[test]
    fn any_bytes_decode_or_fail(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (EntryRecord::decode(&bytes), SliceRecord::decode(&bytes), RecencyRecord::decode(&bytes));
        let _ = (decode_purge(&bytes), decode_owner(&bytes), parse_slice_key(&bytes));
        // The same with a right checksum, so that the fields themselves are reached.
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        let _ = (EntryRecord::decode(&bytes), SliceRecord::decode(&bytes), RecencyRecord::decode(&bytes));
        let _ = (decode_purge(&bytes), decode_owner(&bytes));
    }

    #[test]
    fn slices_purges_and_uses_are_read_as_they_were_written(
        bytes in prop::collection::vec(any::<u8>(), 0..200_000),
        host in "[a-z.]{0,9}",
        what in ".{0,9}",
        numbers in any::<[u64; 3]>(),
    ) {
        let slice = SliceRecord::of(&bytes);
        prop_assert_eq!(SliceRecord::decode(&slice.encode()), Some(slice.clone()));
        prop_assert!(slice.matches(&bytes));
        for scope in [
            PurgeScope::All,
            PurgeScope::Host { host: host.clone() },
            PurgeScope::Path { host: host.clone(), path: what.clone() },
            PurgeScope::Prefix { host: host.clone(), prefix: what.clone() },
            PurgeScope::Tag { host: host.clone(), tag: what.clone() },
            PurgeScope::TagEverywhere { tag: what.clone() },
            PurgeScope::Glob { host: host.clone(), glob: what.clone() },
        ] {
            for mode in [PurgeMode::Hard, PurgeMode::Soft { at_ms: numbers[0] }] {
                let purge = Purge { scope: scope.clone(), mode };
                prop_assert_eq!(decode_purge(&encode_purge(&purge)), Some(purge));
            }
        }
        let [last_use, size, id] = numbers;
        let used = RecencyRecord { last_use, uses: 3, size, id, is_error: id % 2 == 0, full_key: what.into_bytes() };
        prop_assert_eq!(RecencyRecord::decode(&used.encode()), Some(used));
    }
}

#[test]
fn keys_of_slices_are_ordered_by_id_then_slice_with_the_owner_last() {
    let keys = [slice_key(1, 0), slice_key(1, 256), owner_key(1), slice_key(2, 0)];
    assert!(keys.is_sorted());
    assert_eq!(parse_slice_key(&keys[1]), Some((1, Some(256))));
    assert_eq!(parse_slice_key(&keys[2]), Some((1, None)));
    assert_eq!(parse_slice_key(b"short"), None);
}

#[test]
fn places_of_recency_spread_over_the_whole_column() {
    let mut quarters = [0; 4];
    for n in 0..4000 {
        quarters[usize::from(recency_key(format!("a.test\0/{n}\0\0\0").as_bytes())[0] >> 6)] += 1;
    }
    assert!(quarters.iter().all(|count| (800..1200).contains(count)), "{quarters:?}");
}
