//! What the backup tool says on stderr.

use haulout::mariadb::{
    messages::{Cause, ChildEvent},
    prepare::PrepareEvent,
};

/// Reads each line as one of a backup and as one of a prepare.
pub fn check(input: &[u8]) {
    for line in String::from_utf8_lossy(input).lines() {
        let event = ChildEvent::classify(line);
        let completed = PrepareEvent::classify(line) == PrepareEvent::Completed;
        assert_eq!(
            event == ChildEvent::Completed,
            completed,
            "backup and prepare end with the same sentence: {line:?}"
        );
        // A file's name must not pass for the sentence.
        assert!(!completed || line.trim_end().ends_with("completed OK!") && !line.contains('/'), "{line:?}");
        if let ChildEvent::Failure(cause) = event {
            let _: (Cause, String) = (cause.clone(), cause.to_string());
            let _ = cause.remedy();
        }
    }
}
