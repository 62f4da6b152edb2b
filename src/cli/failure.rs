//! Failures as the operator sees them.

use serde::Serialize;

use crate::error::{Diagnose, Kind};

/// Causes shown at most; a longer chain is a loop or says nothing new.
const CAUSES_MAX: usize = 16;

/// An error at the edge: what happened, why, and what to do.
///
/// Made from any error that implements [`Diagnose`]; it has no type of its own in any room, so that `?` is all that a
/// command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// Why, the nearest cause first.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// A failure of the operating system at the edge, such as a file that cannot be written.
    pub fn of_io(message: impl Into<String>, source: &std::io::Error) -> Failure {
        Failure { causes: vec![source.to_string()], ..Failure::new(Kind::Failed, message) }
    }

    /// The failure of a run that was told to stop: whatever then broke did so because of it.
    #[must_use]
    pub fn interrupted(self) -> Failure {
        if self.kind == Kind::Interrupted {
            return self;
        }
        let mut causes = vec![self.message];
        causes.extend(self.causes);
        Failure { causes, ..Failure::new(Kind::Interrupted, "interrupted") }
    }

    /// Lines for people: `haulout: error: …`, the causes, the hint. `paint` marks the leading words.
    pub fn text(&self, paint: impl Fn(&str) -> String) -> String {
        let mut text = format!("haulout: {} {}\n", paint("error:"), self.message);
        for cause in &self.causes {
            text += &format!("  caused by: {cause}\n");
        }
        if let Some(hint) = &self.hint {
            text += &format!("hint: {hint}\n");
        }
        text
    }
}

impl<E: Diagnose> From<E> for Failure {
    fn from(error: E) -> Failure {
        let message = error.to_string();
        let mut causes: Vec<String> = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source.filter(|_| causes.len() < CAUSES_MAX) {
            let text = cause.to_string();
            // Other people's errors often repeat their cause; said twice it only looks like more.
            let known = causes.last().unwrap_or(&message);
            if !text.is_empty() && !known.contains(&text) {
                causes.push(text);
            }
            source = cause.source();
        }
        Failure { kind: error.kind(), message, causes, hint: error.hint() }
    }
}

impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            code: u8,
            kind: &'static str,
            message: &'a str,
            causes: &'a [String],
            hint: Option<&'a str>,
        }
        let (code, kind) = (self.kind.exit_code(), self.kind.name());
        Fields { code, kind, message: &self.message, causes: &self.causes, hint: self.hint.as_deref() }
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read pack 12")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("request failed: connection refused")]
    struct Middle(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("connection refused")]
    struct Inner;

    impl Diagnose for Outer {
        fn kind(&self) -> Kind {
            Kind::StorageUnavailable
        }

        fn hint(&self) -> Option<String> {
            Some("try later".to_owned())
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let failure = Failure::from(Outer(Middle(Inner)));
        assert_eq!(
            failure.text(str::to_owned),
            "haulout: error: cannot read pack 12\n  caused by: request failed: connection refused\nhint: try later\n"
        );
    }

    #[test]
    fn json_names_kind_and_exit_code() {
        let json = serde_json::to_value(Failure::from(Outer(Middle(Inner)))).unwrap();
        assert_eq!(json["code"], 22);
        assert_eq!(json["kind"], "storage_unavailable");
        assert_eq!(json["causes"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_interrupted_run_says_so_and_keeps_what_broke() {
        let failure = Failure::new(Kind::DatabaseRefused, "mariadb-backup was killed").interrupted();
        assert_eq!(failure.kind.exit_code(), 130);
        assert_eq!(failure.causes, ["mariadb-backup was killed"]);
        let own = Failure::new(Kind::Interrupted, "stopped");
        assert_eq!(own.clone().interrupted(), own);
    }
}
