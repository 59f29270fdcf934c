//! When: pauses that grow, and the moment to renew. Functions of values; `dice` is a random number in 0..1, thrown by the
//! caller, so that many names and many machines spread out.

use std::time::Duration;

use crate::clock::Timestamp;

/// Pauses after the server was down: 1 minute, doubling, to an hour at most with the dice.
pub(super) const SERVER_DOWN: Pauses = Pauses { first: Duration::from_secs(60), longest: Duration::from_secs(48 * 60) };

/// Pauses after a name's challenges failed or its order was refused. The first leaves time to set something right; with two
/// challenges a round, the five failures of an hour are spent in the third round, a quarter of an hour later.
pub(super) const NAME_FAILED: Pauses =
    Pauses { first: Duration::from_secs(5 * 60), longest: Duration::from_secs(48 * 60) };

/// Pauses after renewal information could not be had (RFC 9773 section 4.3.3 speaks of six hours for what lasts).
pub(super) const NO_INFORMATION: Pauses =
    Pauses { first: Duration::from_secs(60), longest: Duration::from_secs(6 * 3600) };

/// How the pauses of one kind grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
}

/// From when to when the CA suggests to renew (RFC 9773 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Not before.
    pub(super) start: Timestamp,
    /// Not after; later than `start`.
    pub(super) end: Timestamp,
}

/// What decides when a certificate is renewed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    /// Valid from.
    pub(super) not_before: Timestamp,
    /// Valid until.
    pub(super) not_after: Timestamp,
    /// The CA's suggestion, if it makes one.
    pub(super) window: Option<Window>,
    /// The suggestion is not followed before this: a CA whose windows are always past must not be asked for a new
    /// certificate at every turn.
    pub(super) not_again_before: Timestamp,
    /// Thrown once for a certificate, so that the moment stays where it is.
    pub(super) dice: f64,
}

impl Pauses {
    /// The pause after so many failures in a row: doubled each time, and up to a quarter longer.
    pub(super) fn after(self, failures: u32, dice: f64) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let pause = doubled.min(self.longest);
        pause + pause.mul_f64(dice.clamp(0.0, 1.0) / 4.0)
    }
}

impl Term {
    /// The moment to renew: in the CA's window, or when a third of the lifetime is left (up to a thirtieth of it later). It
    /// is never later than when a tenth of the lifetime is left, whatever the window says.
    pub(super) fn renew_at(&self) -> Timestamp {
        let lifetime = self.not_after.since(self.not_before);
        match self.window {
            Some(window) => {
                let suggested = window.start.plus(self.dice_of(window.end.since(window.start)));
                let last = before(self.not_after, lifetime / 10);
                suggested.max(self.not_again_before).min(last)
            }
            None => before(self.not_after, lifetime / 3).plus(self.dice_of(lifetime / 30)),
        }
    }

    /// Whether it is the CA's window that makes the certificate due now.
    pub(super) fn due_by_window(&self, now: Timestamp) -> bool {
        self.window.is_some() && self.renew_at() <= now && Self { window: None, ..self.clone() }.renew_at() > now
    }

    fn dice_of(&self, span: Duration) -> Duration {
        span.mul_f64(self.dice.clamp(0.0, 1.0))
    }
}

fn before(moment: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_millis(moment.as_millis().saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}
