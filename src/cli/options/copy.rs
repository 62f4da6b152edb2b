//! Settings of copies.

use super::{AccessKey, StoreSettings, secret_of};
use crate::{
    cli::{
        args::{BackupChoice, CopyArgs, CopyPlaceArgs},
        settings::{
            Layers, SettingsError,
            keys::{self, Transfers},
        },
    },
    copy::PACKS_IN_FLIGHT,
};

/// Reads of a store in flight beside packs: those of maps and manifests.
const READS_MIN: usize = 16;

/// Which backups are to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyChoice {
    /// Those newer than the newest of the copy, of the newest so many.
    New(Option<usize>),
    /// All that it does not have.
    All,
    /// These.
    Named(Vec<BackupChoice>),
}

/// All that `copy` needs to know.
#[derive(Debug, Clone)]
pub struct CopySettings {
    /// The repository.
    pub store: StoreSettings,
    /// The copy.
    pub place: StoreSettings,
    /// Which backups.
    pub choice: CopyChoice,
    /// Packs on their way at the same time.
    pub transfers: usize,
    /// Only say what is missing.
    pub dry_run: bool,
    /// Whether archived binary log is copied, too.
    pub binlogs: bool,
}

impl CopySettings {
    /// Resolves the settings of `copy`.
    ///
    /// # Errors
    /// When no place is named for the copy, or a value is wrong.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &CopyArgs) -> Result<CopySettings, SettingsError> {
        let usual = Transfers::clamped(u32::try_from(PACKS_IN_FLIGHT).unwrap_or(u32::MAX));
        let transfers = layers.pick_or(&keys::TRANSFERS, args.transfers, usual)?.get() as usize;
        let store = StoreSettings::assemble(layers, url, &args.store)?;
        let place = place(layers, &args.place)?;
        let reads_max = Some(transfers.max(READS_MIN));
        let (upload_rate_max, download_rate_max) = (store.upload_rate_max, store.download_rate_max);
        let choice = match (args.backup.as_slice(), args.all) {
            ([], true) => CopyChoice::All,
            ([], false) => CopyChoice::New(args.last.map(|last| last.get() as usize)),
            (named, _) => CopyChoice::Named(named.to_vec()),
        };
        Ok(CopySettings {
            store: StoreSettings { reads_max, ..store },
            place: StoreSettings {
                reads_max,
                uploads_max: Some(transfers),
                upload_rate_max,
                download_rate_max,
                ..place
            },
            choice,
            transfers,
            dry_run: args.dry_run,
            binlogs: !args.no_binlogs,
        })
    }
}

/// Resolves where the copy is and how it is reached.
///
/// # Errors
/// When no place is named, a value is wrong, or a secret cannot be read.
pub fn place(layers: &Layers, args: &CopyPlaceArgs) -> Result<StoreSettings, SettingsError> {
    let url = layers.pick(&keys::COPY_TO, args.to.clone())?.ok_or(SettingsError::NoCopy)?;
    let id = layers.pick(&keys::COPY_ACCESS_KEY_ID, None)?;
    let secret = layers.pick(&keys::COPY_SECRET_ACCESS_KEY_FILE, None)?;
    let token = layers.pick(&keys::COPY_SESSION_TOKEN_FILE, None)?;
    let half = |present, absent| SettingsError::HalfAccessKey { present, absent };
    let access_key = match (id, secret) {
        // A profile on the command line beats keys in the file.
        _ if args.to_profile.is_some() => None,
        (Some(id), Some(path)) => Some(AccessKey {
            id,
            secret: secret_of(layers, "[copy] secret_access_key_file", &path)?,
            session_token: token.map(|path| secret_of(layers, "[copy] session_token_file", &path)).transpose()?,
        }),
        (None, None) if token.is_none() => None,
        (Some(_), None) => return Err(half("access_key_id", "secret_access_key_file")),
        (None, Some(_)) => return Err(half("secret_access_key_file", "access_key_id")),
        (None, None) => return Err(half("session_token_file", "access_key_id")),
    };
    Ok(StoreSettings {
        url,
        endpoint_url: layers.pick(&keys::COPY_ENDPOINT_URL, args.to_endpoint_url.clone())?,
        region: layers.pick(&keys::COPY_REGION, args.to_region.clone())?,
        profile: layers.pick(&keys::COPY_PROFILE, args.to_profile.clone())?,
        ca_file: layers.pick(&keys::COPY_CA_FILE, args.to_ca_file.clone())?,
        path_style: layers.pick(&keys::COPY_PATH_STYLE, args.path_style())?,
        upload_checksum: layers.pick_or(&keys::COPY_UPLOAD_CHECKSUM, None, true)?,
        // How long to hope is a matter of this machine's.
        give_up_after: layers.pick(&keys::GIVE_UP_AFTER, None)?.map(keys::GiveUpAfter::get),
        access_key,
        // So is the line, which both stores share.
        upload_rate_max: layers.pick(&keys::LIMIT_UPLOAD, None)?.map(|rate| rate.0),
        download_rate_max: layers.pick(&keys::LIMIT_DOWNLOAD, None)?.map(|rate| rate.0),
        uploads_max: None,
        reads_max: None,
    })
}
