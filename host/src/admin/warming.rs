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
    let state = State { told: Some(handed_on(told, READS_WITHIN)), tally: Tally::default(), beat };
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

/// Goes on by itself as long as there is a reader, who reads something within this time.
fn handed_on(mut told: Warming, reads_within: Duration) -> mpsc::Receiver<Option<Result<Told, Interrupted>>> {
    let (sender, receiver) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = told.next() => next,
                () = sender.closed() => return,
            };
            let is_last = next.is_none();
            if sender.send_timeout(next, reads_within).await.is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

fn frame(value: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{value}\n")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::warm::Kept;

    fn told(number: u64) -> Result<Told, Interrupted> {
        Ok(Told { url: format!("http://a.test/{number}"), outcome: Ok(Kept { fetched: true, bytes: 1 }) })
    }

    #[tokio::test]
    async fn who_reads_nothing_gives_his_place_to_others() {
        let (place, count) = (Arc::new(()), AtomicU64::new(0));
        let held = place.clone();
        let endless =
            stream::repeat_with(move || told(count.fetch_add(Arc::strong_count(&held) as u64, Ordering::Relaxed)));
        let mut lines = handed_on(endless.boxed(), Duration::from_millis(50));
        assert!(matches!(lines.recv().await, Some(Some(Ok(_)))));
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(&place) > 1 {
            assert!(tokio::time::Instant::now() < end, "it still holds its place");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Nobody takes that for the end.
        while let Some(next) = lines.recv().await {
            assert!(next.is_some());
        }
    }

    #[tokio::test]
    async fn the_last_line_says_what_it_came_to_or_that_another_program_goes_on() {
        for (interrupted, last) in [(false, "done"), (true, "interrupted")] {
            let end = interrupted.then_some(Err(Interrupted));
            let told = stream::iter((0..3).map(told).chain(end));
            let all: Vec<_> = lines(told.boxed()).collect().await;
            assert_eq!(all.len(), 4);
            let frame = all[3].as_ref().expect("no error").data_ref().expect("data").clone();
            let value: Value = serde_json::from_slice(&frame).expect("JSON");
            assert!(value.get(last).is_some(), "{value}");
        }
    }
}
