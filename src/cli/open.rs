//! Turns settings into what the other rooms work with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    args::BackupChoice,
    commands::Context,
    failure::Failure,
    keyholder::Keyholder,
    options::{self, ConnectionSettings, ReadSettings, StoreSettings, ToolSettings},
    progress::Unit,
    settings::Owner,
};
use crate::{
    error::Kind,
    format::{Manifest, Proof},
    mariadb::{
        connection::Connection,
        tool::{ToolPaths, Tools},
    },
    model::{BackupId, Progress},
    prune,
    repository::{Access, Cold, Repository, RepositoryError, Wanted},
    restore::{self, FetchOptions, PrepareSettings, Watch},
    store::{self, AccessKey, RetryPolicy, Store, StoreError, StoreOptions},
};

/// Time for which a backup whose capture has begun outlasts a store that is away, unless another is set: three times the five
/// minutes of a usual outage. Meanwhile packs wait in the spool.
const HOLD_OUT_MAX: Duration = Duration::from_secs(15 * 60);

/// Opens the store of `settings`; `create` makes the directory of a `file://` repository.
///
/// # Errors
/// When the URL or an option is wrong, or credentials cannot be had.
pub async fn store(settings: &StoreSettings, create: bool, context: &Context) -> Result<Store, Failure> {
    let lasting = |seconds: u32| RetryPolicy::lasting(Duration::from_secs(seconds.into()));
    let retry = settings.give_up_after.map_or_else(RetryPolicy::default, lasting);
    let hold_out_max = settings.give_up_after.is_none().then_some(HOLD_OUT_MAX);
    Ok(patient_store(settings, create, retry, hold_out_max, context).await?)
}

/// As [`store()`], with limits of its own for each request.
///
/// # Errors
/// Those of [`store()`].
pub async fn patient_store(
    settings: &StoreSettings,
    create: bool,
    retry: RetryPolicy,
    hold_out_max: Option<Duration>,
    context: &Context,
) -> Result<Store, StoreError> {
    store::open(&settings.url.parse()?, &store_options(settings, create, retry, hold_out_max, context)).await
}

/// How the store of `settings` is opened.
pub fn store_options(
    settings: &StoreSettings,
    create: bool,
    retry: RetryPolicy,
    hold_out_max: Option<Duration>,
    context: &Context,
) -> StoreOptions {
    let access_key = settings.access_key.as_ref().map(|key| AccessKey {
        id: key.id.clone(),
        secret: key.secret.clone(),
        session_token: key.session_token.clone(),
    });
    let defaults = StoreOptions::default();
    StoreOptions {
        region: settings.region.clone(),
        endpoint: settings.endpoint_url.clone(),
        path_style: settings.path_style,
        profile: settings.profile.clone(),
        ca_file: settings.ca_file.clone(),
        access_key,
        upload_checksum: settings.upload_checksum,
        create_directory: create,
        retry,
        hold_out_max,
        clock: context.clock(),
        entropy: context.entropy(),
        progress: context.progress(Unit::Bytes),
        uploads_max: settings.uploads_max.unwrap_or(defaults.uploads_max),
        upload_rate_max: settings.upload_rate_max,
        download_rate_max: settings.download_rate_max,
        totals: Some(context.output.figures.totals()),
        reads_max: settings.reads_max.unwrap_or(defaults.reads_max),
    }
}

/// Opens the repository of `settings`.
///
/// # Errors
/// When the store cannot be opened or holds no repository.
pub async fn repository(settings: &StoreSettings, context: &Context) -> Result<Arc<Repository>, Failure> {
    let holder = keyholder(context)?;
    Ok(Arc::new(unlocked(store(settings, false, context).await?, holder, context).await?))
}

/// The keys that the settings name.
///
/// # Errors
/// When one of them cannot be read.
pub fn keyholder(context: &Context) -> Result<Keyholder, Failure> {
    context.settle(Keyholder::assemble(&context.layers, &context.global))
}

/// Opens the repository in `store` with the keys of `holder`.
///
/// # Errors
/// When there is none, or it is sealed and none of the keys fits, or a key is given and it is not sealed.
pub async fn unlocked(store: Store, holder: Keyholder, context: &Context) -> Result<Repository, RepositoryError> {
    if holder.is_empty() {
        return Repository::open(store).await;
    }
    let access = Access { keys: Arc::new(holder), entropy: context.entropy() };
    Repository::unlock(store, &access).await
}

/// The backup that was chosen.
///
/// # Errors
/// When the repository cannot be read or has no backup.
pub async fn choice(repository: &Repository, choice: &BackupChoice) -> Result<BackupId, Failure> {
    match choice {
        BackupChoice::Latest => Ok(repository.find("latest").await?),
        BackupChoice::Id(id) => Ok(id.clone()),
        BackupChoice::Beginning(text) => Ok(repository.find(text).await?),
    }
}

/// The manifest of the backup that was chosen to be read for long; warns where a prune plan lets go of it.
///
/// # Errors
/// When the repository cannot be read or has no such backup.
pub async fn chosen(repository: &Repository, backup: &BackupChoice, context: &Context) -> Result<Manifest, Failure> {
    let manifest = repository.manifest(&choice(repository, backup).await?).await?;
    // Whoever may read backups alone need not be able to list plans.
    let planned = prune::planned(repository, std::slice::from_ref(&manifest.id)).await.unwrap_or_default();
    for (id, planned) in planned {
        let due = planned.due;
        context
            .output
            .warn(&format!("backup {id} is deleted by the first prune after {due}; `haulout undelete {id}` keeps it"));
    }
    Ok(manifest)
}

/// Opens the repository of `settings` and the manifest of the backup that was chosen to be read for long, as [`chosen`] does. Documents that
/// are archived are thawed first, where that is wanted.
///
/// # Errors
/// When the repository cannot be read, has no such backup, or what is thawed cannot be read yet.
pub async fn to_read(
    settings: &ReadSettings,
    backup: &BackupChoice,
    context: &Context,
) -> Result<(Arc<Repository>, Manifest), Failure> {
    let holder = keyholder(context)?;
    let store = store(&settings.store, false, context).await?;
    let (cold, watch) = (Cold::of(&store), watch(context.progress(Unit::Objects), context));
    restore::thaw_documents(&cold, Wanted::Head, settings.thaw, &watch).await?;
    let repository = Arc::new(unlocked(store, holder, context).await?);
    if settings.thaw.is_some() {
        let id = choice(&repository, backup).await?;
        restore::thaw_documents(&cold, Wanted::Manifest(id), settings.thaw, &watch).await?;
    }
    let manifest = chosen(&repository, backup, context).await?;
    Ok((repository, manifest))
}

/// The proofs of `backups`, the newest first; warns of those that cannot be read.
///
/// # Errors
/// When the store does not answer.
pub async fn proofs(
    repository: &Repository,
    backups: &[BackupId],
    context: &Context,
) -> Result<BTreeMap<BackupId, Vec<Proof>>, Failure> {
    let read = match repository.proofs(backups).await {
        // Whoever may read backups alone need not be able to list proofs.
        Err(error) if error.is_denied() => {
            context.output.warn(&format!("whether backups were proven is not known: {error}"));
            return Ok(BTreeMap::new());
        }
        read => read?,
    };
    let mut proofs: BTreeMap<BackupId, Vec<Proof>> = BTreeMap::new();
    for (backup, of_backup) in read {
        for (id, proof) in of_backup {
            match proof {
                Ok(proof) => proofs.entry(backup.clone()).or_default().push(proof),
                Err(error) => context.output.warn(&format!("proof {id} of backup {backup} does not count: {error}")),
            }
        }
    }
    Ok(proofs)
}

/// How to reach the server.
pub fn connection(settings: &ConnectionSettings) -> Connection {
    Connection {
        defaults_file: settings.defaults_file.clone(),
        defaults_extra_file: settings.defaults_extra_file.clone(),
        socket: settings.socket.clone(),
        host: settings.host.clone(),
        port: settings.port,
        user: settings.user.clone(),
        password: settings.password.clone(),
        tls_args: settings.tls_args.clone(),
        home: settings.home.clone(),
    }
}

/// Where to find MariaDB's tools.
pub fn tools(settings: &ToolSettings) -> ToolPaths {
    ToolPaths {
        mariadb_backup: settings.mariadb_backup.clone(),
        mariadb: None,
        mariadbd: None,
        search: settings.search.clone(),
        environment: settings.environment.clone(),
    }
}

/// MariaDB's tools on this machine.
///
/// # Errors
/// When they are missing or no MariaDB's.
pub fn discover(settings: &ToolSettings) -> Result<Tools, Failure> {
    Ok(Tools::discover(&tools(settings))?)
}

/// How packs are read.
pub fn fetching(settings: &ReadSettings) -> FetchOptions {
    FetchOptions { requests: settings.connections.get() as usize, thaw: settings.thaw }
}

/// How a directory is prepared.
pub fn preparing(settings: &options::PrepareSettings) -> PrepareSettings {
    PrepareSettings { memory_bytes: settings.use_memory.map(|memory| memory.0), ..PrepareSettings::default() }
}

/// Who watches a restore, and who may stop it.
pub fn watch(progress: Arc<dyn Progress>, context: &Context) -> Watch {
    Watch { progress, cancel: context.stop.clone().into() }
}

/// The numbers of a user and group, which may be given by numbers, too.
///
/// # Errors
/// When the machine knows no such user or group.
pub fn owner(owner: Option<&Owner>) -> Result<Option<restore::Owner>, Failure> {
    let Some(owner) = owner else { return Ok(None) };
    let unknown = |what: &str, name: &str| {
        Failure::new(Kind::Usage, format!("this machine has no {what} {name}"))
            .with_hint("install mariadb-server first, which makes them, or give others with --owner")
    };
    let user =
        nix::unistd::User::from_name(&owner.user).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    // A number is a user that only a container or another machine knows.
    let user = user.or_else(|| {
        let number: u32 = owner.user.parse().ok()?;
        let known = nix::unistd::User::from_uid(number.into()).ok().flatten();
        Some((number, known.map_or(number, |user| user.gid.as_raw())))
    });
    let (uid, own_gid) = user.ok_or_else(|| unknown("user", &owner.user))?;
    let gid = match &owner.group {
        None => own_gid,
        Some(name) => {
            let group = nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
            group.or_else(|| name.parse().ok()).ok_or_else(|| unknown("group", name))?
        }
    };
    Ok(Some(restore::Owner { uid, gid }))
}
