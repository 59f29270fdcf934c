//! A warm-up as it is told: a line of JSON for each thing, how far it is now and then, and what it came to at the end.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use crate::warm::{Interrupted, Tally, Told, Warming};

/// Between two lines that say how far it is: who waits for a large file sees that there is somebody.
const BEAT: Duration = Duration::from_secs(5);

/// Who reads nothing for so long is gone, whatever his connection says: others wait for the place.
const READS_WITHIN: Duration = Duration::from_secs(60);
/// Things that are told and not read yet.
const UNREAD: usize = 64;

struct State {
    /// None in it is the end.
    told: Option<mpsc::Receiver<Option<Result<Told, Interrupted>>>>,
    tally: Tally,
    beat: Interval,
}

/// The lines.
pub(super) fn lines(told: Warming) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = State { told: Some(handed_on(told)), tally: Tally::default(), beat };
    stream::unfold(state, |mut state| async move {
        let told = state.told.as_mut()?;
        let value = tokio::select! {
            next = told.recv() => match next? {
                Some(Ok(told)) => {
                    state.tally.count(&told.outcome);
                    told.json()
                }
                Some(Err(Interrupted)) => {
                    state.told = None;
                    json!({ "interrupted": "this program ends or another one takes over: ask again" })
                }
                None => {
                    state.told = None;
                    json!({ "done": state.tally })
                }
            },
            _ = state.beat.tick() => json!({ "progress": state.tally }),
        };
        Some((Ok(frame(&value)), state))
    })
}

/// Goes on by itself as long as there is a reader.
fn handed_on(mut told: Warming) -> mpsc::Receiver<Option<Result<Told, Interrupted>>> {
    let (sender, receiver) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = told.next() => next,
                () = sender.closed() => return,
            };
            let is_last = next.is_none();
            if sender.send_timeout(next, READS_WITHIN).await.is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

fn frame(value: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{value}\n")))
}
