//! A set of slice numbers as runs: most bodies have one, however long they are.

use std::collections::BTreeMap;

/// Disjoint runs, start to end (exclusive).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(BTreeMap<u64, u64>);

impl Runs {
    /// Whether a number is in.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// Puts a number in.
    pub fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let end = self.0.remove(&(number + 1)).unwrap_or(number + 1);
        match self.0.range_mut(..=number).next_back() {
            Some((_, before)) if *before == number => *before = end,
            _ => {
                self.0.insert(number, end);
            }
        }
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) {
        let Some((&start, &end)) = self.0.range(..=number).next_back().filter(|(_, end)| number < **end) else {
            return;
        };
        self.0.remove(&start);
        if start < number {
            self.0.insert(start, number);
        }
        if number + 1 < end {
            self.0.insert(number + 1, end);
        }
    }

    /// How many numbers are in.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether all of 0 to `end` (exclusive) are in.
    pub fn covers_to(&self, end: u64) -> bool {
        end == 0 || self.0.get(&0).is_some_and(|covered| *covered >= end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_a_set(changes in prop::collection::vec((any::<bool>(), 0u64..20), 0..60)) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for (insert, number) in changes {
                if insert {
                    runs.insert(number);
                    model.insert(number);
                } else {
                    runs.remove(number);
                    model.remove(&number);
                }
                prop_assert!((0..22).all(|n| runs.contains(n) == model.contains(&n)));
                prop_assert_eq!(runs.len(), model.len() as u64);
                prop_assert!((0..22).all(|end| runs.covers_to(end) == (0..end).all(|n| model.contains(&n))));
                let ends: Vec<_> = runs.0.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "runs that touch are one: {:?}", runs);
            }
        }
    }
}
