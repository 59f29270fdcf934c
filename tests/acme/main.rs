//! Plays with a real ACME server: pebble, its DNS by pebble-challtestsrv, our challenges answered by a small responder.
//!
//! The plays turn a manual clock; what passes in real time is bounded. Ports are the system's to give, and every process
//! that is started here is ended here.
#![allow(missing_docs)]

mod failing;
mod first;
mod limits;
mod names;
mod renewal;
mod responder;
mod scripted;
mod stage;
