//! Requests as a site sees them, made up by chance from a seed, so that every run sees the same.

/// One request: which object, and how large that is.
#[derive(Clone, Copy)]
pub struct Request {
    pub object: u64,
    pub bytes: u64,
}

/// A trace by name.
pub struct Trace {
    pub name: &'static str,
    pub requests: Vec<Request>,
    /// Whether the goals hold for it; else it shows where we are weak.
    pub has_goals: bool,
    /// Bytes of all objects that the site has at one time.
    pub site_bytes: u64,
}

/// Numbers by chance: SplitMix64 (Steele, Lea and Flood 2014).
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 up to but not 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// A number that shows nothing of the order of what it is made of.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Objects of a site, the first asked for most: Zipf's law.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(objects: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let add = |rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self { sums: (1..=objects).map(add).collect() }
    }

    fn draw(&self, chance: &mut Chance) -> u64 {
        let sought = chance.part() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum <= sought) as u64
    }
}

/// What an object weighs: between 1 KiB and 1 MiB, small ones far more often.
fn bytes_of(object: u64) -> u64 {
    let part = (mix(object ^ 0xb17e5) >> 11) as f64 / (1u64 << 53) as f64;
    (1024.0 * 1024f64.powf(part * part)) as u64
}

fn request(object: u64) -> Request {
    Request { object, bytes: bytes_of(object) }
}

/// What happens on the site beside its visits.
struct Site {
    objects: usize,
    exponent: f64,
    /// After so many visits somebody reads many objects, once each; 0: never.
    scan_every: usize,
    scan_length: usize,
    /// It reads what the site has, again and again, and not what nobody asks for ever again.
    scan_own: bool,
    /// Of a thousand visits, so many bring a new object into the place of another.
    news_per_mille: u64,
}

impl Site {
    fn trace(&self, name: &'static str, visits: usize, seed: u64) -> Trace {
        let (mut chance, zipf) = (Chance(seed), Zipf::new(self.objects, self.exponent));
        let mut objects: Vec<u64> = (0..self.objects as u64).collect();
        let site_bytes = objects.iter().map(|object| bytes_of(*object)).sum();
        let (mut new, mut crawled) = (1u64 << 32, 1u64 << 40);
        let mut requests = Vec::with_capacity(visits + visits / 2);
        for visit in 1..=visits {
            requests.push(request(objects[zipf.draw(&mut chance) as usize]));
            if chance.below(1000) < self.news_per_mille {
                let place = chance.below(self.objects as u64) as usize;
                objects[place] = new;
                new += 1;
            }
            if self.scan_every > 0 && visit.is_multiple_of(self.scan_every) {
                for _ in 0..self.scan_length {
                    crawled += 1;
                    let own = objects[crawled as usize % objects.len()];
                    requests.push(request(if self.scan_own { own } else { crawled }));
                    // Visitors come meanwhile, one for three that the crawler reads.
                    if crawled.is_multiple_of(3) {
                        requests.push(request(objects[zipf.draw(&mut chance) as usize]));
                    }
                }
            }
        }
        Trace { name, requests, has_goals: self.news_per_mille < 100, site_bytes }
    }
}

/// All of them. `visits` beside those during scans.
pub fn traces(visits: usize, seed: u64) -> Vec<Trace> {
    let objects = (visits / 10).max(100);
    let still = Site { objects, exponent: 0.9, scan_every: 0, scan_length: 0, scan_own: false, news_per_mille: 0 };
    let scans = Site { scan_every: visits / 8, scan_length: visits / 10, ..still };
    vec![
        still.trace("zipf", visits, seed),
        scans.trace("zipf with scans", visits, seed),
        Site { exponent: 1.1, ..scans }.trace("steep zipf with scans", visits, seed),
        Site { scan_own: true, ..scans }.trace("zipf with crawls of itself", visits, seed),
        Site { news_per_mille: 50, ..still }.trace("zipf with news", visits, seed),
        Site { news_per_mille: 50, ..scans }.trace("zipf with news and scans", visits, seed),
        Site { news_per_mille: 500, ..still }.trace("zipf of fashions", visits, seed),
    ]
}
