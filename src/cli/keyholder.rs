//! The operator's keys: from a file, a passphrase, or a command. They open what a repository's key slots wrap.

use std::path::Path;

use async_trait::async_trait;

use super::{
    args::{GlobalArgs, NewKeyArgs},
    failure::Failure,
    key_command,
    options::secret_of,
    secret::read_bytes,
    settings::{Layers, SettingsError, keys},
};
use crate::{
    error::Kind,
    format::{Credential, KeySlot, Method, SecretKey, key_of_file},
    model::{Entropy, Secret},
    repository::KeySource,
};

/// The keys that were given; each slot is tried with the one of its method.
#[derive(Debug, Clone, Default)]
pub struct Keyholder {
    file: Option<SecretKey>,
    passphrase: Option<Secret>,
    command: Option<String>,
}

impl Keyholder {
    /// Resolves the settings and reads what they name.
    ///
    /// # Errors
    /// When a value is wrong, a file cannot be used, or two passphrases are given.
    pub fn assemble(layers: &Layers, args: &GlobalArgs) -> Result<Keyholder, SettingsError> {
        let file = layers.pick(&keys::KEY_FILE, args.key_file.clone())?;
        Ok(Keyholder {
            file: file.map(|path| key_file(layers, "key_file", &path)).transpose()?,
            passphrase: passphrase(layers, args)?,
            command: layers.pick(&keys::KEY_COMMAND, args.key_command.clone())?,
        })
    }

    /// True when nothing was given.
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.passphrase.is_none() && self.command.is_none()
    }

    /// What the first slot of a new repository is to be opened with: the one thing that was given.
    ///
    /// # Errors
    /// When that is nothing, or more than one, or a command fails.
    pub async fn first(&self, new_key_command: Option<&str>, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        let many = SettingsError::Keys {
            problem: "more than one key is given for the new repository",
            hint: "give one of --key-file, --passphrase-file and --key-command, and add the others with `haulout key add`",
        };
        match (&self.file, &self.passphrase, &self.command) {
            (Some(key), None, None) => Ok(Credential::File(key.clone())),
            (None, Some(passphrase), None) => Ok(Credential::Passphrase(passphrase.clone())),
            (None, None, Some(_)) => match new_key_command {
                Some(command) => self.encrypted(command, entropy).await,
                None => Err(SettingsError::Keys {
                    problem: "a key command decrypts, and nothing says how to encrypt",
                    hint: "give --new-key-command too",
                }
                .into()),
            },
            (None, None, None) => Err(SettingsError::Keys {
                problem: "no key is given to seal the repository with",
                hint: "give --key-file (`openssl rand -hex 32` makes one), --passphrase-file, or --key-command and --new-key-command",
            }
            .into()),
            _ => Err(many.into()),
        }
    }

    /// What a further slot is to be opened with.
    ///
    /// # Errors
    /// When nothing was given, a file cannot be used, or a command fails.
    pub async fn further(
        &self,
        layers: &Layers,
        args: &NewKeyArgs,
        entropy: &dyn Entropy,
    ) -> Result<Credential, Failure> {
        if let Some(path) = &args.new_key_file {
            return Ok(Credential::File(key_file(layers, "new-key-file", path)?));
        }
        if let Some(path) = &args.new_passphrase_file {
            return Ok(Credential::Passphrase(secret_of(layers, "--new-passphrase-file", path)?));
        }
        if let Some(command) = &args.new_key_command {
            return self.encrypted(command, entropy).await;
        }
        match variable(layers, "HAULOUT_NEW_PASSPHRASE")? {
            Some(passphrase) => Ok(Credential::Passphrase(passphrase)),
            None => Err(SettingsError::Keys {
                problem: "nothing says what the new key is made of",
                hint: "give --new-key-file, --new-passphrase-file or --new-key-command",
            }
            .into()),
        }
    }

    /// A random key that `command` encrypted, and that the key command is proven to decrypt.
    async fn encrypted(&self, command: &str, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        let failed = |problem: String| Failure::new(Kind::Failed, problem);
        let Some(opener) = &self.command else {
            return Err(SettingsError::Keys {
                problem: "nothing says how to decrypt what --new-key-command encrypts",
                hint: "give --key-command too: it is tried before it is relied on",
            }
            .into());
        };
        let key = SecretKey::random(entropy);
        let sealed_key = key_command::encrypt(command, &key).await.map_err(failed)?;
        if key_command::decrypt(opener, &sealed_key).await.map_err(failed)? != key {
            return Err(failed(
                "the key command decrypts what --new-key-command encrypted to something else".to_owned(),
            ));
        }
        Ok(Credential::Command { key, sealed_key })
    }
}

#[async_trait]
impl KeySource for Keyholder {
    async fn key(&self, slot: &KeySlot) -> Result<Option<SecretKey>, String> {
        match (&slot.method, &self.file, &self.passphrase, &self.command) {
            (Method::File {}, Some(key), ..) => Ok(Some(key.clone())),
            (Method::Passphrase { .. }, _, Some(passphrase), _) => {
                slot.stretched(passphrase).map_err(|error| error.to_string())
            }
            (Method::Command { .. }, _, _, Some(command)) => {
                let Some(sealed_key) = slot.sealed_key().map_err(|error| error.to_string())? else { return Ok(None) };
                key_command::decrypt(command, &sealed_key).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn key_file(layers: &Layers, key: &'static str, path: &Path) -> Result<SecretKey, SettingsError> {
    let (bytes, exposed) = read_bytes(path).map_err(|source| SettingsError::Secret { key, source })?;
    if exposed {
        layers.warn(format!("key file {} can be read by every user; run `chmod o= {0}`", path.display()));
    }
    let unfit = |error: crate::format::FormatError| SettingsError::KeyFile {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    key_of_file(&bytes).map_err(unfit)
}

fn variable(layers: &Layers, name: &str) -> Result<Option<Secret>, SettingsError> {
    let Some(value) = layers.environment.get(name) else { return Ok(None) };
    value.to_str().map(|text| Some(Secret::new(text))).ok_or_else(|| SettingsError::BadValue {
        origin: format!("environment variable {name}"),
        key: "passphrase".to_owned(),
        problem: "it is not UTF-8".to_owned(),
    })
}

fn passphrase(layers: &Layers, args: &GlobalArgs) -> Result<Option<Secret>, SettingsError> {
    const VARIABLE: &str = "HAULOUT_PASSPHRASE";
    const FILE_VARIABLE: &str = "HAULOUT_PASSPHRASE_FILE";
    let path = layers.pick(&keys::PASSPHRASE_FILE, args.passphrase_file.clone())?;
    let own = variable(layers, VARIABLE)?;
    match (path, own) {
        // Whoever says it on the command line means it.
        (Some(path), _) if args.passphrase_file.is_some() => secret_of(layers, "--passphrase-file", &path).map(Some),
        (Some(_), Some(_)) if layers.environment.get(FILE_VARIABLE).is_some() => {
            Err(SettingsError::TwoPasswords { one: VARIABLE.to_owned(), other: FILE_VARIABLE.to_owned() })
        }
        (_, Some(passphrase)) => Ok(Some(passphrase)),
        (Some(path), None) => secret_of(layers, "[encryption] passphrase_file", &path).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{args::Cli, environment::Environment};

    fn holder(args: &[&str], variables: &[(&str, &str)]) -> Result<Keyholder, SettingsError> {
        let cli = Cli::try_parse_from([&["haulout", "list"], args].concat()).unwrap();
        Keyholder::assemble(&Layers::new(Environment::of_variables(variables), None), &cli.global)
    }

    #[test]
    fn a_passphrase_comes_from_its_file_or_the_environment_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, "from a file\n").unwrap();
        let path = path.to_str().unwrap();
        let text = |holder: Keyholder| holder.passphrase.map(|passphrase| passphrase.reveal().to_owned());
        let variable = ("HAULOUT_PASSPHRASE", "from the environment");
        assert!(holder(&[], &[]).unwrap().is_empty());
        assert_eq!(text(holder(&[], &[variable]).unwrap()).unwrap(), "from the environment");
        assert_eq!(text(holder(&["--passphrase-file", path], &[variable]).unwrap()).unwrap(), "from a file");
        assert!(holder(&[], &[variable, ("HAULOUT_PASSPHRASE_FILE", path)]).is_err());
        assert!(!format!("{:?}", holder(&[], &[variable]).unwrap()).contains("from the"));
    }

    #[test]
    fn a_key_file_that_is_too_short_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "hunter2").unwrap();
        let error = holder(&["--key-file", path.to_str().unwrap()], &[]).unwrap_err().to_string();
        assert!(error.contains("32 random bytes") && !error.contains("hunter2"), "{error}");
        std::fs::write(&path, "11".repeat(32)).unwrap();
        let holder = holder(&["--key-file", path.to_str().unwrap()], &[]).unwrap();
        assert!(!holder.is_empty() && !format!("{holder:?}").contains("17"));
    }
}
