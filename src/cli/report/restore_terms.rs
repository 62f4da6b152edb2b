//! What a restore meets on this machine, and how long it may take.

use serde::Serialize;

use super::Facts;
use crate::{
    cli::human,
    format::Manifest,
    mariadb::packages::{Lacking, Needs},
    restore::{DrillTimes, Estimate, Stretch},
};

/// A program that is missing, or of another series.
#[derive(Debug, Clone, Serialize)]
pub struct LackingProgram {
    /// Its name.
    pub program: &'static str,
    /// The version that is there; null when there is none.
    pub found: Option<String>,
    /// Name of the package that brings it.
    pub package: &'static str,
    /// Release series that it must be of.
    pub series: String,
    /// Release of the backup's server: this one or a later one of the series.
    pub version: String,
}

/// What this machine has and lacks, sizes beyond those of the transfer, and times.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreTerms {
    /// Version of the server that was backed up.
    pub server_version: String,
    /// Version of this machine's `mariadb-backup`.
    pub tool_version: Option<String>,
    /// Version of this machine's `mariadbd`.
    pub mariadbd_version: Option<String>,
    /// What must be installed.
    pub lacking: Vec<LackingProgram>,
    /// Commands that install it, one a line.
    pub install: Option<String>,
    /// Bytes of all files as `ls` shows them.
    pub logical_bytes: u64,
    /// Length of the redo log that the prepare applies.
    pub redo_bytes: u64,
    /// Bytes that must be free.
    pub needed_bytes: u64,
    /// Whether the files are copied into the datadir in the end, from another file system.
    pub copied: bool,
    /// How long it may take, as far as that was measured.
    pub estimate: Estimate,
    /// What was read just now for it.
    pub measured: Option<Stretch>,
    /// The drill that it rests on.
    pub drill: Option<DrillTimes>,
    /// What is in the way.
    pub obstacles: Vec<String>,
}

impl RestoreTerms {
    /// The programs of `needs`, for [`RestoreTerms::lacking`].
    pub fn lacking_of(needs: &Needs) -> Vec<LackingProgram> {
        let line = |lacking: &Lacking| LackingProgram {
            program: lacking.program.name(),
            found: lacking.found.as_ref().map(ToString::to_string),
            package: lacking.program.package(),
            series: needs.series(),
            version: needs.release(),
        };
        needs.lacking.iter().map(line).collect()
    }

    /// Adds what people want to know.
    pub(super) fn tell(&self, facts: Facts) -> Facts {
        let here = |name: &str, version: &Option<String>| match version {
            Some(version) => format!("{name} {version}"),
            None => format!("no {name}"),
        };
        let programs = format!(
            "{}, {}; the backup is of a server {}",
            here("mariadb-backup", &self.tool_version),
            here("mariadbd", &self.mariadbd_version),
            self.server_version
        );
        let packages = |install: &String| {
            let names: Vec<&str> = self.lacking.iter().map(|lacking| lacking.package).collect();
            let of = self
                .lacking
                .first()
                .map(|lacking| format!(" of MariaDB {}, {} or later", lacking.series, lacking.version));
            format!("{}{}\n{install}", names.join(" and "), of.unwrap_or_default())
        };
        facts
            .with("redo log", format!("{}, which the prepare applies", human::bytes(self.redo_bytes)))
            .with("takes", self.takes())
            .with("here", programs)
            .with_some("to install", self.install.as_ref().map(packages))
            .with_some("in the way", (!self.obstacles.is_empty()).then(|| self.obstacles.join("\n")))
    }

    /// The estimate, and what it rests on.
    fn takes(&self) -> String {
        let Estimate { fetch_seconds, prepare_seconds, start_seconds, seconds } = self.estimate;
        let part = |name: &str, seconds: Option<f64>| Some(format!("{name} {}", time(seconds?)));
        let parts = [("fetch", fetch_seconds), ("prepare", prepare_seconds), ("start of the server", start_seconds)];
        let known: Vec<String> = parts.iter().filter_map(|(name, seconds)| part(name, *seconds)).collect();
        let mut lines = vec![match seconds {
            Some(seconds) => format!("about {}: {}", time(seconds), known.join(", ")),
            None if known.is_empty() => "nobody has measured it: `haulout drill` does".to_owned(),
            None if known.len() == parts.len() => {
                format!("{}, and a copy into the datadir, which nobody has measured", known.join(", "))
            }
            None => format!("{}; the rest nobody has measured: `haulout drill` does", known.join(", ")),
        }];
        lines.extend(self.measured.as_ref().map(|Stretch { bytes, seconds }| {
            format!("{} were read just now at {}, and not written", human::bytes(*bytes), human::rate(*bytes, *seconds))
        }));
        lines.extend(self.drill.as_ref().map(drilled));
        lines.join("\n")
    }
}

/// What a drill took, and where.
fn drilled(drill: &DrillTimes) -> String {
    let DrillTimes { proof_id, host, logical_bytes, redo_bytes, fetch_seconds, prepare_seconds, .. } = drill;
    format!(
        "drill {proof_id} on {host} fetched files of {} in {}, prepared {} of redo log in {}",
        human::bytes(*logical_bytes),
        time(*fetch_seconds),
        human::bytes(*redo_bytes),
        time(*prepare_seconds)
    )
}

/// Never less than a second: nothing takes no time.
fn time(seconds: f64) -> String {
    human::duration((seconds.ceil() as u64).max(1))
}

/// What a restore that begins is told to take: sizes by its manifest, and the time where a drill has measured one.
pub fn announcement(manifest: &Manifest, drill: Option<&DrillTimes>) -> String {
    let sizes = &manifest.sizes;
    let takes = match drill.and_then(|drill| Some((drill, Estimate::new(manifest, 0, None, Some(drill)).seconds?))) {
        None => "how long that takes nobody has measured: `haulout drill` does".to_owned(),
        Some((drill, seconds)) => {
            format!("about {} until the server answers, by drill {} on {}", time(seconds), drill.proof_id, drill.host)
        }
    };
    format!(
        "restoring {} in {}, of which {} are stored, and {} of redo log; {takes}",
        human::bytes(sizes.logical_bytes),
        human::counted(manifest.spaces + manifest.files, "file"),
        human::bytes(sizes.stored_bytes),
        human::bytes(manifest.redo.bytes)
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::RestorePlan;
    use super::*;
    use crate::{
        cli::{
            output::{OutputOptions, tests::sheets},
            paint::Paint,
            samples, snapshot,
        },
        format::proof_passing,
        mariadb::packages::PackageSystem,
    };

    fn drill(manifest: &Manifest) -> DrillTimes {
        let proof = proof_passing();
        DrillTimes {
            proof_id: proof.id,
            backup_id: proof.backup,
            host: proof.host,
            finished: proof.finished,
            logical_bytes: manifest.sizes.logical_bytes / 2,
            redo_bytes: manifest.redo.bytes,
            fetch_seconds: 100.0,
            prepare_seconds: 10.0,
            start_seconds: 0.2,
        }
    }

    /// A machine that has all that it takes, and a drill.
    pub fn ready() -> RestoreTerms {
        let manifest = samples::manifest(22);
        let (stretch, drill) = (Stretch { bytes: 64 << 20, seconds: 0.5 }, drill(&manifest));
        RestoreTerms {
            server_version: manifest.server.version.clone(),
            tool_version: Some("10.11.19-MariaDB".to_owned()),
            mariadbd_version: Some("10.11.19-MariaDB-0+deb12u1".to_owned()),
            lacking: Vec::new(),
            install: None,
            logical_bytes: manifest.sizes.logical_bytes,
            redo_bytes: manifest.redo.bytes,
            needed_bytes: 126 << 30,
            copied: false,
            estimate: Estimate::new(&manifest, 33_500_000_000, Some(&stretch), Some(&drill)),
            measured: Some(stretch),
            drill: Some(drill),
            obstacles: Vec::new(),
        }
    }

    /// A machine that lacks everything, and that nobody has measured.
    fn bare() -> RestoreTerms {
        let needs = Needs::new("10.11.19-MariaDB-log".parse().unwrap(), None, Some(&"11.8.6-MariaDB".parse().unwrap()));
        RestoreTerms {
            tool_version: None,
            mariadbd_version: Some("11.8.6-MariaDB".to_owned()),
            lacking: RestoreTerms::lacking_of(&needs),
            install: needs.commands(PackageSystem::Debian),
            estimate: Estimate::default(),
            measured: None,
            drill: None,
            obstacles: vec!["mariadb-backup is not installed".to_owned(), "this machine has no user mysql".to_owned()],
            ..ready()
        }
    }

    #[test]
    fn what_a_bare_machine_needs_is_as_reviewed() {
        let manifest = samples::manifest(22);
        let plan = RestorePlan {
            dry_run: true,
            backup_id: manifest.id,
            datadir: "/var/lib/mysql".into(),
            work_dir: "/var/lib/mysql.haulout".into(),
            lsn: manifest.lsn.last,
            replay: None,
            files: 2462,
            written_bytes: 128_849_018_880,
            fetched_bytes: 33_500_000_000,
            requests: 2310,
            reused_bytes: 0,
            aside: None,
            free_bytes: 500 << 30,
            terms: bare(),
        };
        snapshot::check("restore-plan.txt", &plan.text(Paint::default()));
        let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
        output.json(&plan);
        output.json(&RestorePlan { terms: ready(), ..plan });
        snapshot::check("restore-plan.jsonl", &out.text());
    }

    #[test]
    fn an_estimate_says_what_it_rests_on_and_is_none_where_nothing_was_measured() {
        let manifest = samples::manifest(22);
        let told = |estimate, measured, drill| {
            let terms = RestoreTerms { estimate, measured, drill, ..bare() };
            terms.takes()
        };
        let nothing = told(Estimate::default(), None, None);
        assert_eq!(nothing, "nobody has measured it: `haulout drill` does");
        let stretch = Stretch { bytes: 64 << 20, seconds: 0.5 };
        let fetch_alone = told(Estimate::new(&manifest, 1 << 30, Some(&stretch), None), Some(stretch), None);
        assert_eq!(
            fetch_alone,
            "fetch 8s; the rest nobody has measured: `haulout drill` does\n64.0 MiB were read just now at 128 MiB/s, and not written"
        );
        let drill = drill(&manifest);
        let estimate = Estimate::new(&manifest, 1, None, Some(&drill));
        let copied = told(estimate.with_a_copy(), None, Some(drill.clone()));
        assert!(copied.starts_with("fetch 3m20s, prepare 10s, start of the server 1s, and a copy into"), "{copied}");
        let whole = told(estimate, None, Some(drill));
        assert_eq!(
            whole,
            "about 3m31s: fetch 3m20s, prepare 10s, start of the server 1s\n\
             drill 20261122T053000Z-7c01d2 on drill1.example.com fetched files of 60.0 GiB in 1m40s, prepared 38.8 MiB of redo log in 10s"
        );
    }

    #[test]
    fn a_restore_that_begins_tells_its_sizes_and_the_time_that_a_drill_took() {
        let manifest = samples::manifest(22);
        let unknown = announcement(&manifest, None);
        assert!(unknown.contains("120 GiB in 2,462 files") && unknown.contains("nobody has measured"), "{unknown}");
        let drill = drill(&manifest);
        let known = announcement(&manifest, Some(&drill));
        let end = "about 3m31s until the server answers, by drill 20261122T053000Z-7c01d2 on drill1.example.com";
        assert!(known.ends_with(end), "{known}");
    }
}
