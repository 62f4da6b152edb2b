//! What stands in `infra/` fits the program: commands, variables, exit codes; and units and containers run as confined as they
//! would be by systemd and in a cluster.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    rights::none_but_of_leases,
    support::{
        Bucket, Haulout, LocalStack, MariaDb, PolicedPath, Policy, ServerOptions, not_shown, scratch,
        server::free_port, site::listing, wait,
    },
};

/// Whom the server belongs to here, in the place of `mysql` and of the chart's user 999: an account that every machine has.
const ACCOUNT: &str = "nobody";
const ACCOUNT_ID: u32 = 65534;
/// What systemd gives to a unit with `DynamicUser=yes`, or the like.
const NOBODY_S: u32 = 61184;

/// Time for some backups of a small server, and for a container to end.
const BACKUPS_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(60);

/// Where units and containers have the program.
const INSTALLED: &str = "/usr/bin/haulout";

fn infra() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("infra")
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(infra().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The settings of a unit's `[Service]`, those of all units first.
fn unit(name: &str) -> Vec<(String, String)> {
    let all = [text("systemd/haulout-.service.d/hardening.conf"), text(format!("systemd/{name}"))];
    let lines = all.iter().flat_map(|one| one.lines().skip_while(|line| *line != "[Service]"));
    let settings = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn setting<'a>(unit: &'a [(String, String)], key: &str) -> &'a str {
    unit.iter().rev().find(|(name, _)| name == key).map_or("", |(_, value)| value)
}

fn units() -> Vec<String> {
    let names = fs::read_dir(infra().join("systemd")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> =
        names.map(|name| name.into_string().unwrap()).filter(|one| one.ends_with(".service")).collect();
    names.sort();
    names
}

/// The variables of an environment file.
fn environment_file(path: &str) -> Vec<(String, String)> {
    assert!(path.starts_with("/etc/haulout/"), "{path}");
    let text = text(path.replace("/etc/haulout/", "systemd/etc/"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the chart's example renders to, by component; `infra/check.sh` sees that it is what the chart renders to.
fn rendered() -> BTreeMap<String, Value> {
    let list: Value = serde_json::from_str(&text("helm/rendered.json")).unwrap();
    let items = list["items"].as_array().unwrap().iter().filter(|item| item["kind"] != "ServiceAccount");
    let by_component = |item: &Value| {
        let spec = if item["kind"] == "CronJob" { &item["spec"]["jobTemplate"]["spec"] } else { &item["spec"] };
        (item["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap().to_owned(), spec.clone())
    };
    items.map(by_component).collect()
}

fn container(job: &Value) -> &Value {
    &job["template"]["spec"]["containers"][0]
}

/// The container that the chart prints for a server's pod; `infra/check.sh` sees that it is what the chart prints.
fn sidecar() -> Value {
    serde_json::from_str::<Value>(&text("helm/sidecar.json")).unwrap()["container"].take()
}

/// The container of the chart's agent, and its settings file; `infra/check.sh` sees that they are what the chart renders to.
fn agent() -> (Value, String) {
    let list: Value = serde_json::from_str(&text("helm/agent.json")).unwrap();
    let of_kind = |kind: &str| list["items"].as_array().unwrap().iter().find(|item| item["kind"] == kind).unwrap();
    let file = of_kind("ConfigMap")["data"]["haulout.toml"].as_str().unwrap().to_owned();
    (container(&of_kind("Deployment")["spec"]).clone(), file)
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Arguments of every command in `infra/`, and where each stands.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut commands = Vec::new();
    for name in units() {
        let unit = unit(&name);
        let mut command = setting(&unit, "ExecStart").split(' ').map(str::to_owned);
        assert_eq!(command.next().unwrap(), INSTALLED, "{name}");
        commands.push((name, command.collect()));
    }
    for (component, job) in rendered() {
        commands.push((component, words(&container(&job)["args"])));
    }
    commands.push(("sidecar".to_owned(), words(&sidecar()["args"])));
    commands.push(("agent".to_owned(), words(&agent().0["args"])));
    let dockerfile = text("Dockerfile");
    let after = |key: &str| -> Vec<String> {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        words(&serde_json::from_str(line).unwrap())
    };
    assert_eq!(after("ENTRYPOINT "), [INSTALLED]);
    assert!(dockerfile.contains(&format!("/release/haulout {INSTALLED}\n")));
    commands.push(("Dockerfile".to_owned(), after("CMD ")));
    commands
}

/// The arguments are taken apart up to `--help`, which comes last: what is wrong before it is told.
#[test]
fn every_command_in_infra_is_one_of_the_program_s() {
    let haulout = Haulout::new();
    let help = haulout.run(["--help"]).ok().stdout;
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for (place, mut arguments) in commands {
        let command = arguments.iter().find(|argument| !argument.starts_with('-')).cloned().unwrap_or_default();
        if command == "drill" && !help.contains("\n  drill ") {
            not_shown("that the drill of units and chart is a command: this version has none");
            continue;
        }
        arguments.push("--help".to_owned());
        let run = haulout.run(&arguments);
        assert_eq!(run.code(), Some(0), "{place}: {arguments:?}: {}", run.stderr);
    }
    haulout.run(["--no-progress", "prune", "--keep-dayly=7", "--help"]).exits(2);
    haulout.run(["--no-progress", "prune", "--keep-daily=seven", "--help"]).exits(2);
}

#[test]
fn every_variable_in_infra_is_in_the_settings() {
    let settings = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/SETTINGS.md")).unwrap();
    let mut found = 0;
    for file in [
        "Dockerfile",
        "RUNBOOK.md",
        "helm/rendered.json",
        "helm/sidecar.json",
        "helm/agent.json",
        "helm/haulout/templates/_helpers.tpl",
        "systemd/etc/agent.env",
        "systemd/etc/copier.env",
        "systemd/etc/pruner.env",
        "systemd/etc/reader.env",
        "systemd/etc/sealed.conf",
    ] {
        for part in text(file).split("HAULOUT_").skip(1) {
            let name: String =
                part.chars().take_while(|letter| letter.is_ascii_uppercase() || *letter == '_').collect();
            assert!(settings.contains(&format!("`HAULOUT_{name}`")), "{file}: HAULOUT_{name}");
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

/// A person must look at these; units and jobs must not try again, and must not stop at others.
#[test]
fn units_and_jobs_try_again_what_may_go_well_another_time_and_nothing_else() {
    let readme = include_str!("../../README.md");
    let table = readme.split("| exit code | |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let codes = table.lines().filter_map(|line| line.split('|').nth(1)?.trim().parse::<i64>().ok());
    let final_ones: Vec<i64> = codes.filter(|code| ![0, 1, 11, 22, 130].contains(code)).collect();
    assert_eq!(final_ones.len(), 7, "{final_ones:?}");
    for name in units() {
        let unit = unit(&name);
        let prevented: Vec<i64> =
            setting(&unit, "RestartPreventExitStatus").split(' ').map(|code| code.parse().unwrap()).collect();
        assert_eq!(prevented, final_ones, "{name}");
        assert_eq!(setting(&unit, "SuccessExitStatus"), "", "{name} hides a failure");
    }
    for (component, job) in rendered() {
        let rule = &job["podFailurePolicy"]["rules"][0];
        assert_eq!(rule["action"], "FailJob", "{component}");
        let codes: Vec<i64> =
            rule["onExitCodes"]["values"].as_array().unwrap().iter().map(|code| code.as_i64().unwrap()).collect();
        assert_eq!(codes, final_ones, "{component}");
    }
}

/// Runs the rest of its arguments as user and group `$1` without privileges, on a file system that can be read and not written
/// but for what `$2` names, as `ProtectSystem=strict` and `readOnlyRootFilesystem` have it.
const CONFINED: &str = r#"
account=$1 writable=$2
shift 2
for path in $writable; do mount --bind "$path" "$path"; done
cut -d' ' -f2 /proc/self/mounts | grep -v '^/\(proc\|sys\|dev\)' | while read -r mount; do
  case " $writable " in
    *" $mount "*) ;;
    *) mount -o remount,bind,ro "$mount" 2>/dev/null || true ;;
  esac
done
! touch /var/tmp/haulout-written 2>/dev/null || { echo 'the file system can be written'; exit 99; }
exec setpriv --reuid="$account" --regid="$account" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"#;

/// A machine on which haulout is installed, with a server that is not root's, a bucket, and one for a copy. The store is reached by way
/// of a path for each role, which goes by its policy.
struct Machine {
    server: MariaDb,
    bucket: Bucket,
    second: Bucket,
    paths: BTreeMap<&'static str, PolicedPath>,
    program: PathBuf,
    folder: tempfile::TempDir,
}

fn give_to_account(path: &Path) {
    let status = Command::new("chown").args(["-R", &format!("{ACCOUNT_ID}:{ACCOUNT_ID}")]).arg(path).status().unwrap();
    assert!(status.success());
}

impl Machine {
    /// None, said aloud, where the tests may not mount anything.
    fn new(sql: &str) -> Option<Machine> {
        let may = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output().unwrap();
        if !may.status.success() {
            not_shown("that units and containers run confined: this account may not mount anything");
            return None;
        }
        let id = format!("--reuid={ACCOUNT_ID}");
        let as_account =
            |command: &[&str]| Command::new("setpriv").args([&id, "--clear-groups"]).args(command).output();
        if !as_account(&["mariadb-backup", "--version"]).unwrap().status.success() {
            not_shown("that units and containers run confined: only root may run the tools on PATH");
            return None;
        }
        let mut server = MariaDb::with(ServerOptions::new().tcp());
        server.sql(&format!(
            "CREATE DATABASE shop; USE shop; CREATE TABLE item ENGINE=InnoDB SELECT seq AS id FROM seq_1_to_2000; {sql}"
        ));
        server.stop();
        let home = server.socket().parent().unwrap().to_owned();
        give_to_account(&home);
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        let enter = as_account(&["ls", server.datadir().to_str().unwrap()]).unwrap();
        assert!(enter.status.success(), "TMPDIR is closed to others: {}", String::from_utf8_lossy(&enter.stderr));
        server.add_argument(&format!("--user={ACCOUNT}"));
        server.restart();
        let folder = scratch();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Where the program was built, others may not look.
        let program = folder.path().join("haulout");
        fs::copy(env!("CARGO_BIN_EXE_haulout"), &program).unwrap();
        let [bucket, second] = [(); 2].map(|()| LocalStack::shared().bucket());
        let words = [("BUCKET", bucket.name()), ("PREFIX", "db1")];
        let words_of =
            |role| if role == "copier" { [&words[..], &[("SECOND", second.name())]].concat() } else { words.to_vec() };
        let path = |role| (role, PolicedPath::to(LocalStack::shared().address(), Policy::of(role, &words_of(role))));
        let paths = ["agent", "copier", "pruner", "reader"].map(path).into();
        Some(Machine { server, bucket, second, paths, program, folder })
    }

    /// Sets what this test has in the place of what stands in `infra/`: the buckets, and the way there with the rights of `role`.
    fn with_rights(&self, role: &str, variables: &mut BTreeMap<String, String>) {
        assert!(variables.insert("HAULOUT_REPO".to_owned(), self.bucket.url("db1")).is_some());
        variables.entry("HAULOUT_COPY_TO".to_owned()).and_modify(|set| *set = self.second.url("db1"));
        variables.extend(self.bucket.environment().map(|(name, value)| (name.to_owned(), value)));
        variables.insert("AWS_ENDPOINT_URL".to_owned(), self.paths[role].endpoint());
    }

    /// The copy has the backups of the repository; and nobody asked for what his role may not do.
    fn is_copied_with_the_rights_of_roles(&self, key: &[(&str, &str)]) {
        let [first, second] =
            [&self.bucket, &self.second].map(|one| listing(&Haulout::in_bucket(one, "db1").with(key.iter().copied())));
        assert!(first.len() == second.len() && first.len() > 1, "{first:?}\n{second:?}");
        for (role, path) in &self.paths {
            let (used, refused) = (path.used(), path.refused());
            assert!(!used.is_empty(), "nothing was done as the {role}");
            let of_leases = [&self.bucket, &self.second].iter().any(|bucket| none_but_of_leases(&refused, bucket));
            assert!(of_leases, "{role}: {refused:?}");
        }
    }

    /// A folder that is the account's and that only it may enter.
    fn own_folder(&self, name: &str, account: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&path, Some(account), Some(account)).unwrap();
        path
    }

    /// Runs haulout confined.
    fn run(&self, account: u32, writable: &[&Path], variables: &[(String, String)], arguments: &[String]) -> Output {
        let program = self.program.to_str().unwrap();
        let mut command = vec![format!("PATH={}", std::env::var("PATH").unwrap())];
        command.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.push(program.to_owned());
        command.extend(arguments.iter().cloned());
        self.confined(account, writable, &[&["env".to_owned(), "-i".to_owned()], &command[..]].concat())
    }

    fn confined(&self, account: u32, writable: &[&Path], command: &[String]) -> Output {
        Self::confined_command(account, writable, command).output().unwrap()
    }

    fn confined_command(account: u32, writable: &[&Path], command: &[String]) -> Command {
        let writable: Vec<_> = writable.iter().map(|path| path.to_str().unwrap()).collect();
        let mut all = Command::new("unshare");
        all.args(["--mount", "--propagation", "private", "bash", "-euc", CONFINED, "confined"]);
        all.arg(account.to_string()).arg(writable.join(" ")).args(command);
        all
    }

    /// With the account and the grants of infra/README.md, for the account that the server has here.
    fn with_the_account() -> Option<Machine> {
        let page = text("README.md");
        let grants = page.split("<!-- account -->\n```sql\n").nth(1).unwrap().split("```").next().unwrap();
        Machine::new(&grants.replace("mysql@", &format!("{ACCOUNT}@")))
    }
}

#[track_caller]
fn well(output: &Output) -> String {
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// The unit's variables: its own, and those of its environment file, with this test's server and bucket in their place.
fn variables_of(unit: &[(String, String)], machine: &Machine, cache: &Path) -> Vec<(String, String)> {
    let file = setting(unit, "EnvironmentFile");
    let mut variables: BTreeMap<String, String> = environment_file(file).into_iter().collect();
    machine.with_rights(file.trim_start_matches("/etc/haulout/").trim_end_matches(".env"), &mut variables);
    for (name, value) in [("HAULOUT_SOCKET", machine.server.socket().to_str().unwrap()), ("HAULOUT_USER", ACCOUNT)] {
        variables.entry(name.to_owned()).and_modify(|set| *set = value.to_owned());
    }
    for (_, value) in unit.iter().filter(|(key, _)| key == "Environment") {
        let (name, value) = value.split_once('=').unwrap();
        variables.insert(name.to_owned(), value.replace("%C/haulout", cache.to_str().unwrap()));
    }
    variables.into_iter().collect()
}

#[test]
fn the_units_commands_run_confined_and_with_the_rights_that_the_readme_and_their_policies_grant() {
    let Some(machine) = Machine::with_the_account() else { return };
    let haulout = Haulout::in_bucket(&machine.bucket, "db1");
    haulout.run(["init"]).ok();

    let backup = unit("haulout-backup.service");
    assert_eq!((setting(&backup, "User"), setting(&backup, "CacheDirectory")), ("mysql", "haulout"));
    let cache = machine.own_folder("cache", ACCOUNT_ID);
    let tmp = machine.own_folder("tmp", ACCOUNT_ID);
    let variables = variables_of(&backup, &machine, &cache);
    let arguments: Vec<String> = setting(&backup, "ExecStart").split(' ').skip(1).map(str::to_owned).collect();
    for _ in 0..2 {
        well(&machine.run(ACCOUNT_ID, &[&cache, &tmp], &variables, &arguments));
    }
    // Without its cache it could not: the confinement is one.
    assert_ne!(machine.run(ACCOUNT_ID, &[&tmp], &variables, &arguments).status.code(), Some(0));
    let write = ["touch".to_owned(), machine.server.datadir().join("written").to_str().unwrap().to_owned()];
    assert_ne!(machine.confined(ACCOUNT_ID, &[&cache], &write).status.code(), Some(0));
    let kinds: Vec<_> = haulout.run(["--json", "list"]).ok().messages.iter().map(|line| line["kind"].clone()).collect();
    assert_eq!(kinds[..2], ["full", "incremental"]);

    for name in ["haulout-copy.service", "haulout-prune.service", "haulout-check.service"] {
        let unit = unit(name);
        assert_eq!(setting(&unit, "DynamicUser"), "yes", "{name}");
        let arguments: Vec<String> = setting(&unit, "ExecStart").split(' ').skip(1).map(str::to_owned).collect();
        well(&machine.run(NOBODY_S, &[], &variables_of(&unit, &machine, &cache), &arguments));
    }
    machine.is_copied_with_the_rights_of_roles(&[]);
}

/// The variables of a container: secrets by their names, with this test's server, buckets and cache, and the rights of `role`.
fn variables_in(
    (container, role): (&Value, &str),
    machine: &Machine,
    cache: &Path,
    secrets: &[(&str, &str, &str)],
) -> Vec<(String, String)> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for one in container["env"].as_array().unwrap() {
        let from = &one["valueFrom"]["secretKeyRef"];
        let secret = secrets.iter().find(|(name, key, _)| from["name"] == *name && from["key"] == *key);
        let value = one["value"].as_str().or(secret.map(|(_, _, value)| *value));
        let value = value.unwrap_or_else(|| panic!("{one} has no value")).to_owned();
        variables.insert(
            one["name"].as_str().unwrap().to_owned(),
            value.replace("/var/cache/haulout", cache.to_str().unwrap()),
        );
    }
    machine.with_rights(role, &mut variables);
    let (port, socket) = (machine.server.port().to_string(), machine.server.socket().to_str().unwrap());
    let key = cache.join("key").display().to_string();
    for (name, value) in
        [("HAULOUT_HOST", "127.0.0.1"), ("HAULOUT_PORT", &port), ("HAULOUT_SOCKET", socket), ("HAULOUT_KEY_FILE", &key)]
    {
        variables.entry(name.to_owned()).and_modify(|set| *set = value.to_owned());
    }
    variables.into_iter().collect()
}

#[test]
fn the_chart_s_containers_back_up_copy_check_prune_and_restore_confined_and_with_the_rights_of_their_roles() {
    let (password, passphrase) = ("of the account", "of the repository");
    let Some(mut machine) = Machine::new(&format!(
        "CREATE USER haulout@'%' IDENTIFIED BY '{password}';
         GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO haulout@'%';"
    )) else {
        return;
    };
    let secrets = [("db1-haulout", "password", password), ("db1-haulout-key", "passphrase", passphrase)];
    let haulout = Haulout::in_bucket(&machine.bucket, "db1").with([("HAULOUT_PASSPHRASE", passphrase)]);
    haulout.run(["init", "--encrypt"]).ok();
    let jobs = rendered();
    let cache = machine.own_folder("cache", ACCOUNT_ID);
    let datadir = machine.own_folder("volume", ACCOUNT_ID);
    let run = |machine: &Machine, component: &str, writable: &[&Path]| {
        let container = container(&jobs[component]);
        let mounted = container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["name"] == "datadir");
        let mount = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "datadir");
        // Only a restore may write where the server's files are.
        assert!(!mounted || mount.unwrap()["readOnly"] == (component != "restore"), "{component}");
        let arguments = words(&container["args"]);
        let at = datadir.to_str().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.replace("/var/lib/mysql", at)).collect();
        let account = jobs[component]["template"]["spec"]["serviceAccountName"].as_str().unwrap();
        let role = account.trim_start_matches("db1-haulout-");
        let variables = variables_in((container, role), machine, &cache, &secrets);
        well(&machine.run(ACCOUNT_ID, writable, &variables, &arguments))
    };
    for component in ["backup", "backup", "copy", "check", "prune"] {
        run(&machine, component, &[&cache]);
    }
    machine.is_copied_with_the_rights_of_roles(&[("HAULOUT_PASSPHRASE", passphrase)]);
    let checksums = machine.server.checksums();
    machine.server.stop();
    // The volume is a mount point, and the server's user the only one who may write there.
    run(&machine, "restore", &[&cache, &datadir]);
    let mut restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.checksums(), checksums);
    restored.stop();
}

/// A container that runs for ever: the sidecar's shell, or the agent. Ended when dropped.
struct Looping {
    shell: Child,
    /// What it says.
    log: PathBuf,
}

impl Looping {
    /// The sidecar, with periods of a second.
    fn begin(machine: &Machine, cache: &Path) -> Looping {
        let container = sidecar();
        let variables = variables_in((&container, "agent"), machine, cache, &[]);
        let mut variables: BTreeMap<_, _> = variables.into_iter().collect();
        assert!(variables.insert("HAULOUT_USER".to_owned(), ACCOUNT.to_owned()).is_some());
        variables.insert("PATH".to_owned(), std::env::var("PATH").unwrap());
        let mut shell = words(&container["command"]);
        assert!(shell[2].contains(&format!("\n  {INSTALLED} ")), "{}", shell[2]);
        shell[2] = shell[2].replace(INSTALLED, machine.program.to_str().unwrap());
        assert_eq!(shell[4..], ["3600", "300"]);
        shell[4..].fill("1".to_owned());
        Looping::start(machine, &[cache], &variables, shell.into_iter().chain(words(&container["args"])))
    }

    fn start(
        machine: &Machine,
        writable: &[&Path],
        variables: &BTreeMap<String, String>,
        command: impl IntoIterator<Item = String>,
    ) -> Looping {
        let mut all = vec!["env".to_owned(), "-i".to_owned()];
        all.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        all.extend(command);
        let log = machine.folder.path().join("log");
        let file = fs::File::create(&log).unwrap();
        let mut all = Machine::confined_command(ACCOUNT_ID, writable, &all);
        let shell = all.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Looping { shell, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Tells it to end, as Kubernetes does; gives its exit code.
    fn end(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.shell), Signal::TERM).unwrap();
        wait::until("the sidecar's end", END_LIMIT, || self.shell.try_wait().unwrap()).code()
    }
}

impl Drop for Looping {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn the_chart_s_agent_backs_up_and_archives_confined_and_with_the_rights_of_its_role() {
    let (password, passphrase) = ("of the account", "of the repository");
    let Some(mut machine) = Machine::new(&format!(
        "CREATE USER haulout@'%' IDENTIFIED BY '{password}';
         GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR, REPLICATION SLAVE ON *.* TO haulout@'%';"
    )) else {
        return;
    };
    machine.server.stop();
    machine.server.add_argument("--log-bin=bin");
    machine.server.restart();
    let haulout = Haulout::in_bucket(&machine.bucket, "db1").with([("HAULOUT_PASSPHRASE", passphrase)]);
    haulout.run(["init", "--encrypt"]).ok();
    let (cache, state) = (machine.own_folder("cache", ACCOUNT_ID), machine.own_folder("state", ACCOUNT_ID));
    let (container, settings) = agent();
    let file = machine.folder.path().join("haulout.toml");
    fs::write(&file, settings).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let secrets = [("db1-haulout", "password", password), ("db1-haulout-key", "passphrase", passphrase)];
    let mut variables: BTreeMap<_, _> =
        variables_in((&container, "agent"), &machine, &cache, &secrets).into_iter().collect();
    let port = free_port();
    for (name, here) in [
        ("HAULOUT_CONFIG", file.display().to_string()),
        ("HAULOUT_STATE_DIR", state.display().to_string()),
        ("HAULOUT_AGENT_LISTEN", format!("0.0.0.0:{port}")),
    ] {
        assert!(variables.insert(name.to_owned(), here).is_some(), "{name}");
    }
    variables.insert("PATH".to_owned(), std::env::var("PATH").unwrap());
    let program = machine.program.to_str().unwrap().to_owned();
    let command = std::iter::once(program).chain(words(&container["args"]));
    let mut running = Looping::start(&machine, &[&cache, &state], &variables, command);
    wait::until("the first backup", BACKUPS_LIMIT, || (!listing(&haulout).is_empty()).then_some(()));
    // As its probes and Prometheus ask, by the pod's address.
    let answers = |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        let asked = Command::new("curl").args(["--silent", "--fail", &url]).output().unwrap();
        asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap())
    };
    let archived = || {
        answers("/metrics").filter(|text| {
            text.contains(
                "
haulout_archive_following 1.0
",
            )
        })
    };
    wait::until("the archive", BACKUPS_LIMIT, archived);
    assert!(answers("/healthz").is_some() && answers("/readyz").is_some());
    machine.server.sql("INSERT INTO shop.item VALUES (9999)");
    let segments = || {
        let bare = haulout.run(["--json", "binlog", "list"]).ok();
        bare.messages.iter().any(|line| line["message_type"] == "binlog_segment").then_some(())
    };
    wait::until("a segment", BACKUPS_LIMIT, segments);
    assert_eq!(running.end(), Some(0), "{}", running.said());
    haulout.run(["check", "--read-data"]).ok();
    let refused = machine.paths["agent"].refused();
    assert!(none_but_of_leases(&refused, &machine.bucket), "{refused:?}");
}

/// A container that ends takes the server's pod out of service.
#[test]
fn the_sidecar_backs_up_again_and_again_outlasts_failures_and_ends_when_it_is_told_to() {
    let Some(mut machine) = Machine::with_the_account() else { return };
    let cache = machine.own_folder("cache", ACCOUNT_ID);
    let key = cache.join("key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&key, Some(ACCOUNT_ID), Some(ACCOUNT_ID)).unwrap();
    let haulout = Haulout::in_bucket(&machine.bucket, "db1").with([("HAULOUT_KEY_FILE", key.to_str().unwrap())]);
    haulout.run(["init", "--encrypt"]).ok();
    let reach = |count: usize| {
        wait::until("backups", BACKUPS_LIMIT, || (listing(&haulout).len() >= count).then_some(()));
    };

    let mut sidecar = Looping::begin(&machine, &cache);
    reach(2);
    machine.server.stop();
    let failed = "haulout ended with 23, and is run again in 1 s";
    wait::until("a failure", BACKUPS_LIMIT, || sidecar.said().contains(failed).then_some(()));
    let count = listing(&haulout).len();
    machine.server.restart();
    reach(count + 1);
    assert_eq!(sidecar.end(), Some(0), "{}", sidecar.said());

    // Told to end in the middle of a backup, it ends that too, and leaves nothing that goes on.
    let count = listing(&haulout).len();
    let mut sidecar = Looping::begin(&machine, &cache);
    wait::until("the tool", BACKUPS_LIMIT, || (!machine.server.backups_running().is_empty()).then_some(()));
    assert_eq!(sidecar.end(), Some(0), "{}", sidecar.said());
    assert_eq!(machine.server.backups_running(), [0_u32; 0]);
    assert_eq!(listing(&haulout).len(), count, "the backup was waited for");
    haulout.run(["check", "--read-data"]).ok();
    let refused = machine.paths["agent"].refused();
    assert!(none_but_of_leases(&refused, &machine.bucket), "{refused:?}");
}
