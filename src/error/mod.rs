//! Kinds of failure by what the operator does next, and the hint that says so.
//!
//! Each room has an error enum of its own that keeps its cause in `source`. Kinds and hints are read off at the edge,
//! by the command line, through [`Diagnose`].

/// What the operator does next; each kind has one exit code, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Anything without a kind of its own: read the message.
    Failed,
    /// The command line or a settings file is wrong: correct it.
    Usage,
    /// The command finished, with damage or skips that it named.
    Damaged,
    /// There is no repository at the URL, or one of a newer format.
    NoRepository,
    /// Another run holds the lease: wait or look for it.
    Locked,
    /// The key does not open the repository.
    WrongKey,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The LSN chain does not hold: take a full backup, or restore another one.
    ChainBroken,
    /// The object store cannot be reached or refuses: try again later, or mend access.
    StorageUnavailable,
    /// The database or its tools refuse: mend the server, the account or the packages.
    DatabaseRefused,
    /// Stopped by a signal; nothing is half done.
    Interrupted,
}

impl Kind {
    /// Exit code of the process, from the table in the README.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Damaged => 3,
            Kind::NoRepository => 10,
            Kind::Locked => 11,
            Kind::WrongKey => 12,
            Kind::Corrupt => 20,
            Kind::ChainBroken => 21,
            Kind::StorageUnavailable => 22,
            Kind::DatabaseRefused => 23,
            Kind::Interrupted => 130,
        }
    }

    /// Name in the JSON output, `snake_case`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::Damaged => "damaged",
            Kind::NoRepository => "no_repository",
            Kind::Locked => "locked",
            Kind::WrongKey => "wrong_key",
            Kind::Corrupt => "corrupt",
            Kind::ChainBroken => "chain_broken",
            Kind::StorageUnavailable => "storage_unavailable",
            Kind::DatabaseRefused => "database_refused",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// An error that knows what the operator can do about it.
pub trait Diagnose: std::error::Error + Send + Sync + 'static {
    /// Kind that decides the exit code.
    fn kind(&self) -> Kind;

    /// One sentence on what to do, lower case, without a full stop.
    fn hint(&self) -> Option<String> {
        None
    }
}
