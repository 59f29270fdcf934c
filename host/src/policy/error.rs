//! What can go wrong with policies, in this room's words: starting the engine, loading a file, and a host call that runs into
//! a fence.

use std::path::PathBuf;

use super::decision::FailureKind;

/// Why policies cannot run at all.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

/// Why a file is not in service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file is not there.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// The host had a policy before, and its file is gone (WASM.md: this is no reason to let everyone in).
    #[error(
        "{} is not there, but its host had a policy before: put it back, or say \"policy\": null in hosts.json",
        .0.display()
    )]
    MissingNow(PathBuf),
    /// The file could not be read.
    #[error("{} could not be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// In words.
        reason: String,
    },
    /// The file is larger than any policy may be.
    #[error("{name} has {size} bytes, a policy may have at most {most}")]
    TooLarge {
        /// Name of the file.
        name: String,
        /// Its size.
        size: u64,
        /// The most.
        most: u64,
    },
    /// The bytes are no WebAssembly.
    #[error("{0} is not WebAssembly: it does not begin with the magic bytes \\0asm")]
    NotWasm(String),
    /// It is a core module that could not be turned into a component.
    #[error("{name} is a core module that can't be turned into a component: {reason}")]
    Module {
        /// Name of the file.
        name: String,
        /// In words.
        reason: String,
    },
    /// It does not compile.
    #[error("{name} does not compile: {reason}")]
    Compile {
        /// Name of the file.
        name: String,
        /// In words.
        reason: String,
    },
    /// Its imports or exports are not those of this version, or not granted.
    #[error("{0}")]
    Interface(String),
    /// It asks for more than the program can give.
    #[error("{0}")]
    Limits(String),
    /// It could not be started with its configuration.
    #[error("{name} could not be started: {reason}")]
    Start {
        /// Name of the file.
        name: String,
        /// In words.
        reason: String,
    },
}

/// Why a host call ended the policy's call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fence {
    /// The call belongs to other phases.
    #[error("{function} is only for {phases}")]
    Phase {
        /// The function as in wit/policy.wit.
        function: &'static str,
        /// The phases it is for.
        phases: String,
    },
    /// What it gave cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Too many calls, or too much added.
    #[error("{0}")]
    Calls(String),
    /// Its CPU time is used up.
    #[error("it has used up its time of {0} ms")]
    Time(u64),
}

impl Fence {
    /// How the log and the metrics call it.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Phase { .. } => FailureKind::Trap,
            Self::Invalid(_) => FailureKind::Invalid,
            Self::Calls(_) => FailureKind::Calls,
            Self::Time(_) => FailureKind::Time,
        }
    }
}

impl FailureKind {
    /// The word for metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Trap => "trap",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Calls => "calls",
            Self::Invalid => "invalid",
            Self::Quarantine => "quarantine",
            Self::Load => "load",
        }
    }
}
