//! Settings of `serve`.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::{StoreSettings, secret_of};
use crate::{
    cli::{
        args::ServeArgs,
        settings::{Layers, Listen, SettingsError, Stretch, keys},
    },
    fleet::Thresholds,
    model::Secret,
    web::{TOKEN_BYTES_MIN, is_local},
};

/// Where it listens, unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8321);
/// Seconds that may lie between two looks.
const REFRESH: RangeInclusive<u64> = 5..=86_400;

/// All that `serve` needs to know.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// The place of the fleet.
    pub store: StoreSettings,
    /// The page.
    pub page: PageSettings,
    /// Time between two looks, where it was given.
    pub refresh: Option<Duration>,
}

/// How a page is served; an agent has the same.
#[derive(Debug, Clone)]
pub struct PageSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names by which it is called, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// With it runs can be started.
    pub token: Option<Secret>,
    /// What is borne.
    pub thresholds: Thresholds,
    /// Price of a GiB for a month.
    pub price: Option<f64>,
}

impl ServeSettings {
    /// Resolves the settings of `serve`.
    ///
    /// # Errors
    /// When a value is wrong, the token cannot be read, or others would reach the address and that was not allowed.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &ServeArgs) -> Result<ServeSettings, SettingsError> {
        let refresh = layers.pick(&keys::REFRESH, args.refresh.clone())?;
        let refresh = refresh.as_ref().map(|stretch| seconds("refresh", stretch, &REFRESH)).transpose()?;
        Ok(ServeSettings {
            store: StoreSettings::assemble(layers, url, &args.store)?,
            page: PageSettings::assemble(layers, args)?,
            refresh: refresh.map(Duration::from_secs),
        })
    }
}

impl PageSettings {
    /// Resolves the settings of a page.
    ///
    /// # Errors
    /// Those of [`ServeSettings::assemble`].
    pub fn assemble(layers: &Layers, args: &ServeArgs) -> Result<PageSettings, SettingsError> {
        let listen = layers.pick_or(&keys::LISTEN, args.listen, Listen(LISTEN))?.0;
        PageSettings::at(listen, layers, args)
    }

    /// As [`assemble`](PageSettings::assemble), of an agent that listens at `listen`.
    ///
    /// # Errors
    /// Those of [`ServeSettings::assemble`].
    pub fn at(listen: SocketAddr, layers: &Layers, args: &ServeArgs) -> Result<PageSettings, SettingsError> {
        let remote = layers.pick_or(&keys::ALLOW_REMOTE, args.allow_remote.then_some(true), false)?;
        if !remote && !is_local(listen.ip()) {
            return Err(SettingsError::Remote { listen });
        }
        let hosts = (!args.allow_host.is_empty()).then(|| args.allow_host.clone());
        let token = layers.pick(&keys::TOKEN_FILE, args.token_file.clone())?;
        let token = token.map(|path| secret_of(layers, "[serve] token_file", &path)).transpose()?;
        if token.as_ref().is_some_and(|token| token.reveal().len() < TOKEN_BYTES_MIN) {
            return Err(wrong("token_file", format!("expected a token of {TOKEN_BYTES_MIN} bytes or more")));
        }
        let usual = Thresholds::default();
        let any = 0..=u64::from(u32::MAX);
        let age = |key, flag: &Option<Stretch>, name, usual: u64| {
            let given = layers.pick(key, flag.clone())?;
            given.as_ref().map_or(Ok(usual), |stretch| seconds(name, stretch, &any))
        };
        let proof = age(&keys::MAX_PROOF_AGE, &args.max_proof_age, "max_proof_age", usual.proof_age_max.unwrap_or(0))?;
        let thresholds = Thresholds {
            backup_age_max: age(&keys::MAX_AGE, &args.max_age, "max_age", usual.backup_age_max)?,
            proof_age_max: (proof > 0).then_some(proof),
            gap_within: age(&keys::GAP_WITHIN, &args.gap_within, "gap_within", usual.gap_within)?,
        };
        Ok(PageSettings {
            listen,
            hosts: layers.pick_or(&keys::ALLOW_HOSTS, hosts, Vec::new())?,
            token,
            thresholds,
            price: layers.pick(&keys::PRICE, args.price)?.map(|price| price.0),
        })
    }
}

fn wrong(key: &str, problem: String) -> SettingsError {
    let origin = "a setting of the page".to_owned();
    SettingsError::BadValue { origin, key: format!("[serve] {key}"), problem }
}

fn seconds(key: &str, stretch: &Stretch, allowed: &RangeInclusive<u64>) -> Result<u64, SettingsError> {
    let seconds = stretch.seconds().map_err(|problem| wrong(key, problem))?;
    let told = || wrong(key, format!("expected {} to {} seconds", allowed.start(), allowed.end()));
    Some(seconds).filter(|seconds| allowed.contains(seconds)).ok_or_else(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::Environment;

    fn assemble(args: &ServeArgs, variables: &[(&str, &str)]) -> Result<ServeSettings, SettingsError> {
        let layers = Layers::new(Environment::of_variables(variables), None);
        ServeSettings::assemble(&layers, Some("file:///x"), args)
    }

    #[test]
    fn an_address_that_others_reach_is_refused_unless_it_was_allowed() {
        let args = ServeArgs { listen: Some("0.0.0.0:80".parse().unwrap()), ..ServeArgs::default() };
        assert!(matches!(assemble(&args, &[]), Err(SettingsError::Remote { .. })));
        assert!(assemble(&ServeArgs { allow_remote: true, ..args.clone() }, &[]).is_ok());
        assert!(assemble(&args, &[("HAULOUT_ALLOW_REMOTE", "true")]).is_ok());
        let usual = assemble(&ServeArgs::default(), &[]).unwrap();
        assert_eq!((usual.page.listen, usual.refresh), (LISTEN, None));
        assert_eq!(usual.page.thresholds, Thresholds::default());
    }

    #[test]
    fn thresholds_come_from_settings_and_no_proofs_need_be_asked_for() {
        let args = ServeArgs {
            max_age: Some("2h".parse().unwrap()),
            max_proof_age: Some("0s".parse().unwrap()),
            refresh: Some("90s".parse().unwrap()),
            ..ServeArgs::default()
        };
        let settings = assemble(&args, &[("HAULOUT_PRICE", "0.023")]).unwrap();
        assert_eq!((settings.page.thresholds.backup_age_max, settings.page.thresholds.proof_age_max), (7200, None));
        assert_eq!((settings.refresh, settings.page.price), (Some(Duration::from_secs(90)), Some(0.023)));
        let hasty = ServeArgs { refresh: Some("1s".parse().unwrap()), ..ServeArgs::default() };
        assert!(assemble(&hasty, &[]).is_err());
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let args = ServeArgs { token_file: Some(path.clone()), ..ServeArgs::default() };
        std::fs::write(&path, "short\n").unwrap();
        assert!(assemble(&args, &[]).unwrap_err().to_string().contains("16 bytes"));
        std::fs::write(&path, "correct horse battery\n").unwrap();
        assert!(assemble(&args, &[]).unwrap().page.token.is_some());
    }
}
