//! The policies in `infra/iam`: well formed, and without what they must not allow.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::root;

/// What nobody who runs haulout may do.
const NEVER: [&str; 12] = [
    "s3:DeleteObjectVersion",
    "s3:BypassGovernanceRetention",
    "s3:PutObjectLegalHold",
    "s3:PutBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutReplicationConfiguration",
    "s3:PutEncryptionConfiguration",
    "s3:DeleteBucket",
    "s3:DeleteBucketPolicy",
    "s3:PutObjectAcl",
];

/// The policies of roles.
const ROLES: [&str; 4] = ["agent.json", "copier.json", "reader.json", "pruner.json"];

/// The words of a text or of a list of texts.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(texts) => texts.iter().map(|text| text.as_str().expect("a text")).collect(),
        other => panic!("neither a text nor a list: {other}"),
    }
}

fn matches(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => action.starts_with(beginning),
        None => pattern == action,
    }
}

struct Policy(Value);

impl Policy {
    fn read(name: &str) -> Policy {
        let text = fs::read_to_string(root().join("infra/iam").join(name)).unwrap();
        Policy(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn statements(&self, effect: &str) -> impl Iterator<Item = &Value> {
        self.0["Statement"].as_array().unwrap().iter().filter(move |statement| statement["Effect"] == effect)
    }

    fn holds(&self, effect: &str, action: &str) -> bool {
        self.statements(effect)
            .any(|statement| words(&statement["Action"]).iter().any(|pattern| matches(pattern, action)))
    }

    /// Allowed, and not denied.
    fn allows(&self, action: &str) -> bool {
        self.holds("Allow", action) && !self.holds("Deny", action)
    }
}

#[test]
fn every_policy_is_well_formed_and_allows_nothing_at_large() {
    for name in ROLES {
        let policy = Policy::read(name);
        assert_eq!(policy.0["Version"], "2012-10-17", "{name}");
        let mut sids = BTreeSet::new();
        for statement in policy.statements("Allow").chain(policy.statements("Deny")) {
            assert!(sids.insert(statement["Sid"].as_str().unwrap()), "{name}: a Sid twice");
            for resource in words(&statement["Resource"]) {
                let place = resource.trim_start_matches("arn:aws:s3:::").trim_end_matches("/PREFIX/*");
                assert!(place == "BUCKET" || (place == "SECOND" && name == "copier.json"), "{name}: {resource}");
            }
            for action in words(&statement["Action"]) {
                assert!(action.starts_with("s3:"), "{name}: {action}");
                let at_large = statement["Effect"] == "Allow" && action.contains('*');
                assert!(!at_large, "{name} allows {action}");
            }
        }
        assert_eq!(sids.len(), policy.0["Statement"].as_array().unwrap().len(), "{name}: neither allowed nor denied");
    }
}

#[test]
fn no_policy_lets_anybody_undo_a_lock_and_each_denies_it() {
    for name in ROLES {
        let policy = Policy::read(name);
        for action in NEVER {
            assert!(!policy.holds("Allow", action), "{name} allows {action}");
            assert!(policy.holds("Deny", action), "{name} does not deny {action}");
        }
    }
}

#[test]
fn the_copier_only_reads_the_first_bucket_and_deletes_and_locks_nothing_in_the_second() {
    let copier = Policy::read("copier.json");
    let of = |bucket: &str| -> Policy {
        let place = format!("arn:aws:s3:::{bucket}");
        let all = copier.0["Statement"].as_array().unwrap().iter();
        let about = |one: &&Value| words(&one["Resource"]).iter().all(|resource| resource.starts_with(&place));
        Policy(serde_json::json!({ "Statement": all.filter(about).collect::<Vec<_>>() }))
    };
    let (first, second) = (of("BUCKET"), of("SECOND"));
    let statements = |policy: &Policy| policy.0["Statement"].as_array().unwrap().len();
    assert_eq!(statements(&first) + statements(&second), statements(&copier), "a statement about both");
    for (policy, may_put) in [(&first, false), (&second, true)] {
        assert!(policy.allows("s3:GetObject") && policy.allows("s3:ListBucket"));
        assert_eq!((policy.allows("s3:PutObject"), policy.holds("Deny", "s3:PutObject")), (may_put, !may_put));
        for action in NEVER.iter().chain(&["s3:DeleteObject", "s3:PutObjectRetention"]) {
            assert!(!policy.holds("Allow", action) && policy.holds("Deny", action), "{action}");
        }
    }
}

#[test]
fn each_policy_allows_what_its_role_needs_and_no_more() {
    let reads =
        ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"];
    let writes = ["s3:PutObject", "s3:PutObjectRetention"];
    for (name, may_write, may_delete) in
        [("agent.json", true, false), ("reader.json", false, false), ("pruner.json", true, true)]
    {
        let policy = Policy::read(name);
        for action in reads {
            assert!(policy.allows(action), "{name} does not allow {action}");
        }
        for action in writes {
            assert_eq!(policy.allows(action), may_write, "{name}: {action}");
            assert_eq!(policy.holds("Deny", action), !may_write, "{name}: {action}");
        }
        assert_eq!(policy.allows("s3:DeleteObject"), may_delete, "{name}");
        assert_eq!(policy.holds("Deny", "s3:DeleteObject"), !may_delete, "{name}");
    }
}

/// Thawing costs money and changes nothing: who restores may, in a statement of its own that can be left out.
#[test]
fn only_who_restores_may_thaw() {
    for (name, expected) in [("agent.json", 0), ("copier.json", 0), ("reader.json", 1), ("pruner.json", 0)] {
        let policy = Policy::read(name);
        let thaws: Vec<_> =
            policy.statements("Allow").filter(|one| words(&one["Action"]).contains(&"s3:RestoreObject")).collect();
        assert_eq!(thaws.len(), expected, "{name}");
        for statement in thaws {
            assert_eq!((statement["Sid"].as_str(), words(&statement["Action"]).len()), (Some("Thaw"), 1), "{name}");
        }
        assert_eq!(policy.allows("s3:RestoreObject"), expected == 1, "{name}");
    }
}

/// Whoever has the credentials could else lock the bucket for a hundred years.
#[test]
fn locks_are_allowed_for_a_limited_time_and_in_one_mode() {
    for name in ["agent.json", "pruner.json"] {
        let policy = Policy::read(name);
        let locks = policy.statements("Allow").filter(|one| words(&one["Action"]).contains(&"s3:PutObjectRetention"));
        for statement in locks {
            assert_eq!(words(&statement["Action"]), ["s3:PutObjectRetention"], "{name}");
            let condition = &statement["Condition"];
            assert!(
                condition["NumericLessThanEquals"]["s3:object-lock-remaining-retention-days"].is_string(),
                "{name}"
            );
            assert_eq!(condition["StringEquals"]["s3:object-lock-mode"], "COMPLIANCE", "{name}");
        }
    }
}
