//! Which pages of the region are used, and by what kind of memory they are backed: bookkeeping only.
//!
//! A chunk is what one huge page covers. In a small chunk every page can be given back to the system alone, and is free again.
//! In a huge one it cannot: a socket may still hold the whole, so what was used there is *spent* until the chunk is renewed
//! (`tending.rs`), and only what was never used is free.

use std::collections::BTreeSet;

/// The smallest piece of memory that is handed out.
pub(super) const PAGE_BYTES: usize = 4 << 10;

/// What one huge page covers, on every architecture with pages of 4 KiB.
pub(super) const CHUNK_BYTES: usize = 2 << 20;

const CHUNK_PAGES: usize = CHUNK_BYTES / PAGE_BYTES;

/// Runs are told apart by the power of two that they reach: 1, 2, 4 up to 512 pages.
const LENGTHS: usize = CHUNK_PAGES.ilog2() as usize + 1;

/// So many chunks with a run that is perhaps long enough are looked at, before one is taken whose run surely is.
const TRIES: usize = 4;

/// Chunks with higher numbers stay in small pages (from 16 GiB on): one that is renewed is a mapping of its own to the kernel, which
/// allows a process some 65,000 (vm.max_map_count).
pub(super) const MOVED_MAX: usize = 8192;

/// A bit for each page of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageSet([u64; CHUNK_PAGES / 64]);

impl PageSet {
    fn set(&mut self, first: usize, count: usize, value: bool) {
        for page in first..first + count {
            let bit = 1 << (page % 64);
            if value {
                self.0[page / 64] |= bit;
            } else {
                self.0[page / 64] &= !bit;
            }
        }
    }

    fn with(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    fn count(self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn is_empty(self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The first page at or behind `from` that is set, or not.
    fn next(self, from: usize, value: bool) -> usize {
        let mut at = from;
        while at < CHUNK_PAGES {
            let word = if value { self.0[at / 64] } else { !self.0[at / 64] } >> (at % 64);
            if word != 0 {
                return at + word.trailing_zeros() as usize;
            }
            at = (at / 64 + 1) * 64;
        }
        CHUNK_PAGES
    }

    /// Runs of pages that are set: the first and how many.
    pub(super) fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at, true);
            if first == CHUNK_PAGES {
                return None;
            }
            at = self.next(first, false);
            Some((first, at - first))
        })
    }
}

/// What a chunk is backed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing: nothing was written there since it was given back to the system.
    Whole,
    /// One huge page of which nothing is used.
    Ready,
    /// Pages that come and go one by one.
    Small,
    /// One huge page.
    Huge,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    kind: Kind,
    live: PageSet,
    spent: PageSet,
    /// So many pages' owners are writing or giving back: it stays as it is.
    busy: u32,
    /// Someone has it for himself: nothing is taken from it.
    held: bool,
    /// Where it stands in `open`.
    run: Option<usize>,
}

impl Chunk {
    const WHOLE: Self = Self {
        kind: Kind::Whole,
        live: PageSet([0; CHUNK_PAGES / 64]),
        spent: PageSet([0; CHUNK_PAGES / 64]),
        busy: 0,
        held: false,
        run: None,
    };

    fn free(&self) -> PageSet {
        PageSet([u64::MAX; CHUNK_PAGES / 64]).without(self.live.with(self.spent))
    }
}

/// Pages of a chunk that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chunk: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

impl Place {
    /// Where in its chunk it begins.
    pub(super) fn bytes_in(&self) -> usize {
        self.first * PAGE_BYTES
    }
}

/// What is to be done about pages that nobody uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// They are to be given back to the system, and `given_back` called.
    Punch,
    /// Nothing; `true` if there is something to tend now.
    Spent(bool),
}

/// What tending comes upon.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chore {
    /// All of this chunk is spent: give it back to the system.
    Reset(usize),
    /// Back this chunk, which is whole, with a huge page.
    Prepare(usize),
    /// Move what lives in `from` into `to`, which is ready.
    Renew { from: usize, to: usize, live: PageSet },
}

/// All pages.
pub(super) struct Pages {
    chunks: Vec<Chunk>,
    /// Chunks with free pages that may be taken, huge and small, by the longest run in them.
    open: [[BTreeSet<usize>; LENGTHS]; 2],
    whole: BTreeSet<usize>,
    ready: BTreeSet<usize>,
    /// Chunks in use that nothing lives in, or did a moment ago.
    empty: BTreeSet<usize>,
    /// Chunks in use that are small or worn.
    due: BTreeSet<usize>,
    /// Chunks that are huge or ready.
    huge: usize,
    /// No more than so many are.
    huge_max: usize,
    ready_wanted: usize,
}

impl Pages {
    pub(super) fn new(chunks: usize, huge_max: usize, ready_wanted: usize) -> Self {
        Self {
            chunks: vec![Chunk::WHOLE; chunks],
            open: Default::default(),
            whole: (0..chunks).collect(),
            ready: BTreeSet::new(),
            empty: BTreeSet::new(),
            due: BTreeSet::new(),
            huge: 0,
            huge_max: huge_max.min(MOVED_MAX / 2),
            ready_wanted,
        }
    }

    /// Takes so many pages that lie together. They are the caller's to write, who calls `written` then.
    pub(super) fn take(&mut self, count: usize) -> Option<Place> {
        let number = self
            .find(Kind::Huge, count)
            .or_else(|| self.begin(Kind::Huge))
            .or_else(|| self.find(Kind::Small, count))
            .or_else(|| self.begin(Kind::Small))?;
        let chunk = &mut self.chunks[number];
        let (first, _) = chunk.free().runs().find(|(_, length)| *length >= count)?;
        chunk.live.set(first, count, true);
        chunk.busy += 1;
        self.sort_in(number);
        Some(Place { chunk: number, first, count })
    }

    /// A chunk of that kind with a run that is long enough.
    fn find(&self, kind: Kind, count: usize) -> Option<usize> {
        let open = &self.open[usize::from(kind == Kind::Huge)];
        let perhaps = open[count.ilog2() as usize].iter().take(TRIES);
        let long_enough = |number: &&usize| self.chunks[**number].free().runs().any(|(_, length)| length >= count);
        let surely = count.next_power_of_two().ilog2() as usize;
        perhaps.clone().find(long_enough).or_else(|| open[surely..].iter().find_map(BTreeSet::first)).copied()
    }

    fn begin(&mut self, kind: Kind) -> Option<usize> {
        // Small ones from the other end: those with low numbers can become huge.
        let number = match kind {
            Kind::Huge if !self.has_spare() => None,
            Kind::Huge => self.ready.pop_first(),
            _ => self.whole.pop_last(),
        }?;
        self.chunks[number].kind = kind;
        if kind == Kind::Small && number < MOVED_MAX {
            self.due.insert(number);
        }
        Some(number)
    }

    /// Whether a ready chunk can be given away. The last one is for renewing what is worn, which gives one back: without it nothing
    /// could be renewed any more.
    fn has_spare(&self) -> bool {
        self.ready.len() > 1 || (self.huge < self.huge_max && self.preparable().is_some())
    }

    /// A chunk that can be backed with a huge page.
    fn preparable(&self) -> Option<usize> {
        self.whole.first().copied().filter(|number| *number < MOVED_MAX)
    }

    /// What was taken is written.
    pub(super) fn written(&mut self, place: Place) {
        self.chunks[place.chunk].busy -= 1;
    }

    /// Nobody uses these pages any more. `punchable`: pages can be given back one by one.
    pub(super) fn release(&mut self, place: Place, punchable: bool) -> Released {
        let chunk = &mut self.chunks[place.chunk];
        if punchable && chunk.kind == Kind::Small && !chunk.held {
            chunk.busy += 1;
            return Released::Punch;
        }
        chunk.live.set(place.first, place.count, false);
        chunk.spent.set(place.first, place.count, true);
        Released::Spent(self.sort_due(place.chunk))
    }

    /// Notes what there may be to do about a chunk. `true` if there is something.
    fn sort_due(&mut self, number: usize) -> bool {
        let chunk = &self.chunks[number];
        let (is_empty, is_worn) = (chunk.live.is_empty(), chunk.kind == Kind::Huge && Self::is_worn(chunk));
        if is_empty {
            self.empty.insert(number);
        } else if is_worn {
            self.due.insert(number);
        }
        is_empty || is_worn
    }

    /// The system has them, and gives new ones. If it does not (`false`), they are never used again by themselves.
    pub(super) fn given_back(&mut self, place: Place, done: bool) {
        let chunk = &mut self.chunks[place.chunk];
        chunk.busy -= 1;
        chunk.live.set(place.first, place.count, false);
        chunk.spent.set(place.first, place.count, !done);
        self.sort_due(place.chunk);
        self.sort_in(place.chunk);
    }

    /// Whether enough of a chunk is spent to move the rest: a quarter.
    fn is_worn(chunk: &Chunk) -> bool {
        chunk.spent.count() >= CHUNK_PAGES / 4
    }

    /// What there is to do next. `huge`: chunks can be backed with huge pages.
    pub(super) fn chore(&mut self, huge: bool) -> Option<Chore> {
        // What was used again meanwhile comes back when it is empty again.
        while let Some(number) = self.empty.pop_first() {
            if self.is_idle(number) && self.chunks[number].live.is_empty() {
                self.hold(number);
                return Some(Chore::Reset(number));
            }
        }
        if !huge {
            return None;
        }
        if self.ready.len() < self.ready_wanted
            && self.huge < self.huge_max
            && let Some(number) = self.preparable()
        {
            self.whole.remove(&number);
            self.hold(number);
            return Some(Chore::Prepare(number));
        }
        // Those in small pages first: they gain the most, and cost no more. But they use up what is ready.
        let to = *self.ready.first()?;
        let small = if self.has_spare() { self.due(Kind::Small) } else { None };
        let from = small.or_else(|| self.due(Kind::Huge))?;
        self.ready.remove(&to);
        self.hold(from);
        self.hold(to);
        Some(Chore::Renew { from, to, live: self.chunks[from].live })
    }

    /// A chunk of that kind that is due, and that nobody is at.
    fn due(&self, kind: Kind) -> Option<usize> {
        self.due.iter().copied().find(|number| self.chunks[*number].kind == kind && self.is_idle(*number))
    }

    /// Whether nobody is at a chunk that is in use.
    fn is_idle(&self, number: usize) -> bool {
        let chunk = &self.chunks[number];
        chunk.busy == 0 && !chunk.held && matches!(chunk.kind, Kind::Small | Kind::Huge)
    }

    fn hold(&mut self, number: usize) {
        self.chunks[number].held = true;
        self.due.remove(&number);
        self.empty.remove(&number);
        self.sort_in(number);
    }

    /// A chunk was reset, or could not be (`false`): then it is never used again.
    pub(super) fn reset(&mut self, number: usize, done: bool) {
        if matches!(self.chunks[number].kind, Kind::Ready | Kind::Huge) {
            self.huge -= 1;
        }
        self.chunks[number] = Chunk { held: !done, ..Chunk::WHOLE };
        if done {
            self.whole.insert(number);
        }
    }

    /// A chunk is backed by a huge page now.
    pub(super) fn prepared(&mut self, number: usize) {
        self.chunks[number].kind = Kind::Ready;
        self.chunks[number].held = false;
        self.huge += 1;
        self.ready.insert(number);
    }

    /// A chunk is backed by the huge page of another one, into which `live` was moved.
    pub(super) fn renewed(&mut self, number: usize, live: PageSet) {
        let chunk = &mut self.chunks[number];
        if chunk.kind != Kind::Huge {
            self.huge += 1;
        }
        chunk.kind = Kind::Huge;
        chunk.held = false;
        // What was given up while it was moved has been written, and perhaps sent.
        chunk.spent = live.without(chunk.live);
        self.sort_due(number);
        self.sort_in(number);
    }

    /// A chunk that was to be renewed stays as it is.
    pub(super) fn left(&mut self, number: usize) {
        self.chunks[number].held = false;
        self.due.insert(number);
        self.sort_due(number);
        self.sort_in(number);
    }

    /// Puts a chunk where its longest free run belongs.
    fn sort_in(&mut self, number: usize) {
        let chunk = &mut self.chunks[number];
        let open = &mut self.open[usize::from(chunk.kind == Kind::Huge)];
        if let Some(run) = chunk.run.take() {
            // Its kind never changes while it stands somewhere: who has it for himself has taken it out.
            open[run].remove(&number);
        }
        if !chunk.held && matches!(chunk.kind, Kind::Small | Kind::Huge) {
            chunk.run = chunk.free().runs().map(|(_, length)| length.ilog2() as usize).max();
            if let Some(run) = chunk.run {
                open[run].insert(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(usize),
        Release(usize),
        Tend,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..=256_usize).prop_map(Step::Take),
            3 => any::<usize>().prop_map(Step::Release),
            2 => Just(Step::Tend),
        ]
    }

    /// Does one chore as `tending.rs` does.
    fn tend(pages: &mut Pages, huge: bool) -> bool {
        match pages.chore(huge) {
            Some(Chore::Reset(number)) => pages.reset(number, true),
            Some(Chore::Prepare(number)) => pages.prepared(number),
            Some(Chore::Renew { from, to, live }) => {
                pages.renewed(from, live);
                pages.reset(to, true);
            }
            None => return false,
        }
        true
    }

    proptest! {
        #[test]
        fn places_never_overlap_and_all_comes_back(
            steps in prop::collection::vec(step(), 1..200), huge in any::<bool>(), punchable in any::<bool>(),
        ) {
            let mut pages = Pages::new(12, 5, 2);
            let mut kept: Vec<Place> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(count) => {
                        if let Some(place) = pages.take(count) {
                            prop_assert!(place.count == count && place.first + count <= CHUNK_PAGES);
                            let apart = |other: &Place| other.chunk != place.chunk
                                || other.first + other.count <= place.first
                                || place.first + place.count <= other.first;
                            prop_assert!(kept.iter().all(apart));
                            pages.written(place);
                            kept.push(place);
                        }
                    }
                    Step::Release(at) if !kept.is_empty() => {
                        let place = kept.swap_remove(at % kept.len());
                        if pages.release(place, punchable) == Released::Punch {
                            pages.given_back(place, true);
                        }
                    }
                    Step::Release(_) => {}
                    Step::Tend => _ = tend(&mut pages, huge),
                }
                prop_assert!(pages.huge <= 5);
                let live: usize = pages.chunks.iter().map(|chunk| chunk.live.count()).sum();
                prop_assert_eq!(live, kept.iter().map(|place| place.count).sum::<usize>());
            }
            for place in kept {
                if pages.release(place, punchable) == Released::Punch {
                    pages.given_back(place, true);
                }
            }
            while tend(&mut pages, huge) {}
            prop_assert_eq!(pages.whole.len() + pages.ready.len(), 12);
            prop_assert!(pages.open.iter().flatten().all(BTreeSet::is_empty));
        }
    }

    #[test]
    fn what_is_worn_is_renewed_however_full_it_is() {
        let mut pages = Pages::new(132, 68, 4);
        let (mut kept, mut used) = (Vec::<Place>::new(), 0);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50_000 {
            tend(&mut pages, true);
            let count = 8 + random.usize(..24);
            while used + count > 52 * CHUNK_PAGES {
                let place = kept.swap_remove(random.usize(..kept.len()));
                used -= place.count;
                if pages.release(place, true) == Released::Punch {
                    pages.given_back(place, true);
                }
            }
            if let Some(place) = pages.take(count) {
                pages.written(place);
                used += count;
                kept.push(place);
            }
        }
        while tend(&mut pages, true) {}
        let worn = pages.chunks.iter().filter(|chunk| chunk.kind == Kind::Huge && Pages::is_worn(chunk)).count();
        assert_eq!(worn, 0);
        let small: usize =
            pages.chunks.iter().filter(|chunk| chunk.kind == Kind::Small).map(|chunk| chunk.live.count()).sum();
        assert!(small * 10 < used, "{small} of {used} pages are small");
    }

    #[test]
    fn what_was_used_in_a_huge_chunk_is_not_used_again_before_it_is_renewed() {
        let mut pages = Pages::new(3, 3, 1);
        assert!(tend(&mut pages, true), "one is made ready");
        let places: Vec<Place> = (0..4).map(|_| pages.take(128).unwrap()).collect();
        places.iter().for_each(|place| pages.written(*place));
        assert_eq!(pages.release(places[1], true), Released::Spent(true));
        let next = pages.take(128).unwrap();
        assert_ne!(next.chunk, places[0].chunk);
        pages.written(next);
        while tend(&mut pages, true) {}
        assert_eq!(pages.take(128), Some(Place { chunk: places[0].chunk, first: 128, count: 128 }));
    }
}
