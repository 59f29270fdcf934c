//! The timer of a connection, and its ear for the drain: what ends it, other than the peer and itself.

use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use super::Service;
use super::activity::{Activity, Limits, Overdue, Verdict};
use super::adapter::{Adapter, StreamExecutor};
use super::drain::{Drain, Phase};
use super::outbox::Outbox;
use super::patience::Looked;
use super::stream::{Away, Stream, peer, unsent};
use crate::telemetry::metrics::{Metrics, TimeoutLabels};

/// Time for an idle connection to say goodbye after it was told to go.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a connection ended.
pub(super) enum End {
    Closed(hyper::Result<()>),
    Overdue(Overdue),
    Aborted,
}

/// Connections of any protocol, as far as they are alike.
pub(super) trait Watchable: Future<Output = hyper::Result<()>> + Unpin {
    /// Ends after what is under way.
    fn graceful_shutdown(&mut self);
    /// Nothing is under way: what is not needed until the next request can go.
    fn rest(&mut self);
}

impl<S: Service> Watchable for http2::Connection<TokioIo<Stream>, Adapter<S>, StreamExecutor> {
    fn graceful_shutdown(&mut self) {
        Self::graceful_shutdown(Pin::new(self));
    }

    // hyper gives back what it has of HTTP/1.x only.
    fn rest(&mut self) {}
}

fn advance(drain: Arc<Drain>, phase: Phase) -> BoxFuture<'static, ()> {
    Box::pin(async move { drain.reached(phase).await })
}

/// A connection with a timer and an ear for the drain.
///
/// A connection is polled several times for each request, the timer and the drain have something to say hardly ever.
/// They are asked by plain loads and polled only to leave a waker with them: again when they have rung, or when the task
/// is woken by another waker than before.
pub(super) struct Watched<C> {
    connection: C,
    // What the connection has written goes out when it has nothing more to say for now.
    outbox: Option<Arc<Outbox>>,
    activity: Arc<Activity>,
    below: Below,
    // What the peer had when the timer last looked, while the kernel held something for it.
    reached: Option<u64>,
    // How fast the peer takes what the socket is full of.
    pace: Pace,
    metrics: Arc<Metrics>,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    drain: Arc<Drain>,
    advance: BoxFuture<'static, ()>,
    waker: Option<Waker>,
    // The piece that a client waits for who has closed its sending side, and since when that is known.
    away: Option<(u64, Instant)>,
    // The drain was heard of.
    drains: bool,
    // Why and since when the connection is asked to end.
    leaving: Option<(Option<Overdue>, Instant)>,
}

/// The socket inside a connection, open as long as that is.
pub(super) struct Below {
    /// Its number.
    pub(super) descriptor: RawFd,
    /// Counts the bytes that the kernel has taken, where those are fewer than were written.
    pub(super) taken: Option<Arc<AtomicU64>>,
}

impl Below {
    /// Bytes that the peer has, if the kernel holds others for it.
    fn reached(&self, activity: &Activity) -> Option<u64> {
        let unsent = unsent(self.descriptor).filter(|unsent| *unsent > 0)?;
        let taken = self.taken.as_ref().map_or_else(|| activity.taken(), |taken| taken.load(Ordering::Relaxed));
        Some(taken.saturating_sub(unsent as u64))
    }
}

/// What a connection is watched by.
pub(super) struct Watch {
    /// Its times.
    pub(super) activity: Arc<Activity>,
    /// The socket.
    pub(super) below: Below,
    /// Where its frames wait to go out (HTTP/2).
    pub(super) outbox: Option<Arc<Outbox>>,
    pub(super) limits: Limits,
    pub(super) drain: Arc<Drain>,
    pub(super) metrics: Arc<Metrics>,
}

impl<C> Watched<C> {
    pub(super) fn new(connection: C, watch: Watch) -> Self {
        let Watch { activity, below, outbox, limits, drain, metrics } = watch;
        Self {
            connection,
            outbox,
            activity,
            below,
            reached: None,
            pace: Pace::default(),
            metrics,
            limits,
            timer: Box::pin(tokio::time::sleep(limits.shortest())),
            advance: advance(drain.clone(), Phase::Draining),
            drain,
            waker: None,
            away: None,
            drains: false,
            leaving: None,
        }
    }
}

impl<C: Watchable> Future for Watched<C> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        let mut leave_waker = !this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if leave_waker {
            this.waker = Some(cx.waker().clone());
            this.activity.line().lives_in(cx.waker());
        }

        match this.drain.phase() {
            Phase::Serving => {}
            Phase::Draining => {
                if !std::mem::replace(&mut this.drains, true) && this.leaving.is_none() {
                    let patient = this.drain.is_patient();
                    if !patient {
                        this.activity.hurry();
                    }
                    // Whoever closes between two requests may close on one that is on its way.
                    if !(patient && this.activity.tell_last()) {
                        this.connection.graceful_shutdown();
                        this.leaving = Some((None, Instant::now()));
                    }
                    this.advance = advance(this.drain.clone(), Phase::Closed);
                    leave_waker = true;
                }
            }
            Phase::Closed => return Poll::Ready(End::Aborted),
        }
        if leave_waker && this.advance.as_mut().poll(cx).is_ready() {
            // It advanced just now: look again.
            cx.waker().wake_by_ref();
        }

        if leave_waker || this.timer.is_elapsed() {
            while this.timer.as_mut().poll(cx).is_ready() {
                match (this.activity.waits_for_us(), peer(this.below.descriptor)) {
                    (Some(_), Away::Gone) => return Poll::Ready(End::Aborted),
                    // It may have closed its sending side only and still wait, for as long as others may take to read.
                    (Some(pieces), Away::Silent) => match this.away {
                        Some((known, since)) if known == pieces => {
                            if since.elapsed() >= this.limits.stall {
                                return Poll::Ready(End::Aborted);
                            }
                        }
                        _ => this.away = Some((pieces, Instant::now())),
                    },
                    _ => this.away = None,
                }
                let verdict = this.activity.verdict(&this.limits);
                // An answer that is complete may still be on its way: the kernel takes megabytes at once.
                let may_wait = this.activity.is_blocked() || verdict == Verdict::Over(Overdue::Idle);
                let reached = if may_wait { this.below.reached(&this.activity) } else { None };
                if matches!((reached, this.reached), (Some(now), Some(before)) if now > before) {
                    this.activity.unblocked();
                }
                this.reached = reached;
                match reached {
                    Some(reached) if this.pace.is_too_slow(reached, &this.limits) => {
                        return Poll::Ready(End::Overdue(Overdue::Write));
                    }
                    Some(_) => {}
                    None => this.pace = Pace::default(),
                }
                let Looked { ended, stuck, next } = this.activity.end_stalled();
                if stuck {
                    return Poll::Ready(End::Overdue(Overdue::Window));
                }
                this.metrics
                    .connection_timeouts
                    .get_or_create(&TimeoutLabels { limit: Overdue::Window.word() })
                    .inc_by(ended as u64);
                if this.leaving.is_none() && this.activity.rests() {
                    this.connection.rest();
                }
                let pause = match (this.activity.verdict(&this.limits), &this.leaving) {
                    (Verdict::Over(Overdue::Idle), None) if reached.is_some() => this.limits.shortest(),
                    (Verdict::Wait(pause), _) => next.map_or(pause, |next| pause.min(Duration::from_millis(next))),
                    (Verdict::Over(Overdue::Idle), None) => {
                        this.connection.graceful_shutdown();
                        this.leaving = Some((Some(Overdue::Idle), Instant::now()));
                        FAREWELL
                    }
                    (Verdict::Over(Overdue::Idle), Some((_, since))) if since.elapsed() < FAREWELL => {
                        FAREWELL - since.elapsed().min(FAREWELL)
                    }
                    (Verdict::Over(overdue), _) => return Poll::Ready(End::Overdue(overdue)),
                };
                this.timer.as_mut().reset(Instant::now() + pause);
            }
        }

        let Poll::Ready(closed) = Pin::new(&mut this.connection).poll(cx) else {
            if let Some(outbox) = &this.outbox {
                match outbox.poll_round(cx) {
                    Poll::Pending => this.activity.blocked(),
                    Poll::Ready(Ok(())) => this.activity.sent(0),
                    // Whoever reads or writes next finds out, too.
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Aborted),
                }
            }
            return Poll::Pending;
        };
        Poll::Ready(match this.leaving {
            Some((Some(overdue), _)) => End::Overdue(overdue),
            _ => End::Closed(closed),
        })
    }
}

/// How fast a peer takes what the socket is full of.
#[derive(Debug, Default)]
struct Pace(Option<(Instant, u64)>);

impl Pace {
    /// Whether it was too slow over a whole stretch of time. `taken`: bytes that it has by now.
    fn is_too_slow(&mut self, taken: u64, limits: &Limits) -> bool {
        let Some((since, before)) = self.0 else {
            self.0 = Some((Instant::now(), taken));
            return false;
        };
        if since.elapsed() < limits.stall {
            return false;
        }
        self.0 = Some((Instant::now(), taken));
        taken.saturating_sub(before) < limits.least_rate * since.elapsed().as_millis() as u64 / 1000
    }
}
