//! While nothing fails, the cache is a map; `reference.rs` has what can fail.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Get(u8),
    Purge(u8),
    PurgeAll,
    Remove(u8),
    Cool,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop::sample::select(vec![0usize, 5, 40_000, (1 << 20) + 1]);
    prop::collection::vec(
        prop_oneof![
            4 => (0..4u8, size).prop_map(|(path, size)| Step::Put(path, size)),
            6 => (0..4u8).prop_map(Step::Get),
            1 => (0..4u8).prop_map(Step::Purge),
            1 => Just(Step::PurgeAll),
            1 => (0..4u8).prop_map(Step::Remove),
            2 => Just(Step::Cool),
            1 => Just(Step::Crash),
        ],
        1..25,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_cache_is_a_map_that_never_shows_what_was_purged_or_replaced(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new();
            let mut model: HashMap<u8, Vec<u8>> = HashMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(path, size) => {
                        let mut body = bytes(size);
                        body.iter_mut().for_each(|byte| *byte ^= number as u8);
                        rig.keep(&format!("/{path}"), &body).await;
                        model.insert(path, body);
                    }
                    Step::Get(path) => {
                        let found = rig.get(&format!("/{path}")).await.map(|(body, _)| body);
                        assert_eq!(found.as_ref(), model.get(&path));
                    }
                    Step::Purge(path) => {
                        let scope = PurgeScope::Path { host: "a.test".into(), path: format!("/{path}") };
                        rig.cache.purge(scope).await.unwrap();
                        model.remove(&path);
                    }
                    Step::PurgeAll => {
                        rig.cache.purge(PurgeScope::All).await.unwrap();
                        model.clear();
                    }
                    Step::Remove(path) => {
                        let (key, headers) = (key(&format!("/{path}")), HeaderMap::new());
                        let asked = Asked { key: &key, headers: &headers, request_path: "/" };
                        if let Some(found) = rig.cache.lookup_memory(&asked) {
                            rig.cache.remove(&found.entry);
                            model.remove(&path);
                        }
                    }
                    Step::Cool => rig.cache.shared.hot.clear(),
                    Step::Crash => {
                        rig.settle().await;
                        rig = rig.crashed();
                    }
                }
                rig.settle().await;
            }
        });
    }
}
