//! What our policy is measured by: exact LRU, and S3-FIFO as its authors describe it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::trace::Request;

/// A cache that decides what stays.
pub trait Policy {
    /// Whether the object was there. It is afterwards, if it fits at all.
    fn ask(&mut self, request: Request) -> bool;
}

/// The one goes that was not used for longest.
pub struct Lru {
    capacity: u64,
    bytes: u64,
    turn: u64,
    last_use: HashMap<u64, u64>,
    by_turn: BTreeMap<u64, Request>,
}

impl Lru {
    pub fn new(capacity: u64) -> Self {
        Self { capacity, bytes: 0, turn: 0, last_use: HashMap::new(), by_turn: BTreeMap::new() }
    }
}

impl Policy for Lru {
    fn ask(&mut self, request: Request) -> bool {
        if request.bytes > self.capacity {
            return false;
        }
        self.turn += 1;
        let before = self.last_use.insert(request.object, self.turn);
        if let Some(before) = before {
            self.by_turn.remove(&before);
        } else {
            self.bytes += request.bytes;
        }
        self.by_turn.insert(self.turn, request);
        while self.bytes > self.capacity
            && let Some((_, oldest)) = self.by_turn.pop_first()
        {
            self.last_use.remove(&oldest.object);
            self.bytes -= oldest.bytes;
        }
        before.is_some()
    }
}

/// A queue and the bytes in it.
#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, request: Request) {
        self.bytes += request.bytes;
        self.requests.push_front(request);
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_back()?;
        self.bytes -= request.bytes;
        Some(request)
    }
}

/// S3-FIFO: Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1. Sizes
/// are in bytes, and the ghost queue holds what stood for as many bytes as the main queue, as in the authors' libCacheSim.
pub struct S3Fifo {
    capacity: u64,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    /// Uses of what is in the small or the main queue: 0 to 3.
    uses: HashMap<u64, u8>,
}

/// What was evicted from the small queue, without its bytes.
#[derive(Default)]
struct Ghost {
    order: VecDeque<(Request, u64)>,
    /// By object the turn at which it came; what has another turn in `order` is no more.
    turns: HashMap<u64, u64>,
    turn: u64,
    bytes: u64,
}

impl Ghost {
    fn remember(&mut self, request: Request, capacity: u64) {
        self.turn += 1;
        if self.turns.insert(request.object, self.turn).is_none() {
            self.bytes += request.bytes;
        }
        self.order.push_front((request, self.turn));
        while self.bytes > capacity
            && let Some((oldest, turn)) = self.order.pop_back()
        {
            if self.turns.get(&oldest.object) == Some(&turn) {
                self.forget(oldest);
            }
        }
    }

    /// Whether it was remembered.
    fn forget(&mut self, request: Request) -> bool {
        let remembered = self.turns.remove(&request.object).is_some();
        self.bytes -= if remembered { request.bytes } else { 0 };
        remembered
    }
}

impl S3Fifo {
    pub fn new(capacity: u64) -> Self {
        let (small, main, ghost) = (Queue::default(), Queue::default(), Ghost::default());
        Self { capacity, small, main, ghost, uses: HashMap::new() }
    }

    fn main_capacity(&self) -> u64 {
        self.capacity - self.capacity / 10
    }

    fn evict(&mut self) {
        if self.small.bytes >= self.capacity / 10 || self.main.requests.is_empty() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        while let Some(tail) = self.small.pop() {
            let used_again = self.uses.get(&tail.object).is_some_and(|uses| *uses > 1);
            if !used_again {
                self.uses.remove(&tail.object);
                self.ghost.remember(tail, self.main_capacity());
                return;
            }
            self.uses.insert(tail.object, 0);
            self.main.push(tail);
            while self.main.bytes > self.main_capacity() {
                self.evict_main();
            }
        }
    }

    fn evict_main(&mut self) {
        while let Some(tail) = self.main.pop() {
            match self.uses.get_mut(&tail.object) {
                Some(uses) if *uses > 0 => {
                    *uses -= 1;
                    self.main.push(tail);
                }
                _ => {
                    self.uses.remove(&tail.object);
                    return;
                }
            }
        }
    }
}

impl Policy for S3Fifo {
    fn ask(&mut self, request: Request) -> bool {
        if let Some(uses) = self.uses.get_mut(&request.object) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        if request.bytes > self.capacity {
            return false;
        }
        while self.small.bytes + self.main.bytes + request.bytes > self.capacity {
            self.evict();
        }
        let remembered = self.ghost.forget(request);
        if remembered {
            self.main.push(request)
        } else {
            self.small.push(request)
        }
        self.uses.insert(request.object, 0);
        false
    }
}
