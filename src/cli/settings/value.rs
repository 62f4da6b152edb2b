//! What a setting can hold.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::Serialize;
use url::Url;

use super::file::Raw;
use crate::cli::human::ByteSize;

/// A type that a setting can have, readable from the environment and from the settings file.
pub trait Value: Sized {
    /// What is expected, for messages.
    const EXPECTED: &'static str;

    /// Reads a value from an environment variable.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads a value from the settings file.
    ///
    /// # Errors
    /// Says what is wrong with the value.
    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::from_text(text),
            other => Err(format!("expected {}, found {}", Self::EXPECTED, other.kind())),
        }
    }

    /// The value for people.
    fn shown(&self) -> String;
}

impl Value for String {
    const EXPECTED: &'static str = "a text";

    fn from_text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn shown(&self) -> String {
        // A URL that holds a secret is refused, but not before it was shown.
        if self.contains('@') { "…".to_owned() } else { self.clone() }
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "an absolute path";

    fn from_text(text: &str) -> Result<PathBuf, String> {
        Ok(text.into())
    }

    fn from_raw(raw: &Raw) -> Result<PathBuf, String> {
        // A service and an operator's shell seldom start in the same directory.
        match raw {
            Raw::Text(text) if text.starts_with('/') => Ok(text.into()),
            Raw::Text(text) => Err(format!("expected an absolute path, found {text:?}")),
            other => Err(format!("expected an absolute path, found {}", other.kind())),
        }
    }

    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Result<bool, String> {
        match text {
            "true" | "yes" | "1" => Ok(true),
            "false" | "no" | "0" => Ok(false),
            _ => Err(format!("expected true or false, found {text:?}")),
        }
    }

    fn from_raw(raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            other => Err(format!("expected true or false, found {}", other.kind())),
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as \"512MiB\"";

    fn from_text(text: &str) -> Result<ByteSize, String> {
        text.parse()
    }

    fn from_raw(raw: &Raw) -> Result<ByteSize, String> {
        match raw {
            Raw::Text(text) => text.parse(),
            Raw::Integer(text) => text.parse(),
            other => Err(format!("expected {}, found {}", Self::EXPECTED, other.kind())),
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    const EXPECTED: &'static str = "a number from 1 to 65535";

    fn from_text(text: &str) -> Result<u16, String> {
        match text.parse() {
            Ok(0) | Err(_) => Err(format!("expected {}, found {text:?}", Self::EXPECTED)),
            Ok(number) => Ok(number),
        }
    }

    fn from_raw(raw: &Raw) -> Result<u16, String> {
        match raw {
            Raw::Integer(text) => Self::from_text(text),
            other => Err(format!("expected {}, found {}", Self::EXPECTED, other.kind())),
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and a port such as \"127.0.0.1:9187\"";

    fn from_text(text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| format!("expected {}, found {text:?}", Self::EXPECTED))
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Value for Url {
    const EXPECTED: &'static str = "a URL such as \"https://s3.example.com\"";

    fn from_text(text: &str) -> Result<Url, String> {
        endpoint(text)
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

/// Addresses of other people's services. What stands behind the host may be a secret, and is not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<Url>);

impl Value for Addresses {
    const EXPECTED: &'static str = "a list of URLs such as [\"https://hooks.example.com/x\"]";

    fn from_text(text: &str) -> Result<Addresses, String> {
        text.split_whitespace().map(endpoint).collect::<Result<_, _>>().map(Addresses)
    }

    fn from_raw(raw: &Raw) -> Result<Addresses, String> {
        match raw {
            Raw::List(list) => list.iter().map(|text| endpoint(text)).collect::<Result<_, _>>().map(Addresses),
            other => Err(format!("expected {}, found {}", Self::EXPECTED, other.kind())),
        }
    }

    fn shown(&self) -> String {
        let hosts = self.0.iter().map(|url| format!("{}://{}/…", url.scheme(), url.host_str().unwrap_or_default()));
        hosts.collect::<Vec<_>>().join(" ")
    }
}

/// Reads the URL of an endpoint: `http` or `https`, without a user.
///
/// # Errors
/// Says what is wrong, without repeating what may be a secret.
pub fn endpoint(text: &str) -> Result<Url, String> {
    let expected = || "expected a URL such as https://s3.example.com".to_owned();
    let url = Url::parse(text).map_err(|_| expected())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL holds a user or a password, which do not belong there".to_owned());
    }
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(expected()),
    }
}

impl Value for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";

    fn from_text(text: &str) -> Result<Vec<String>, String> {
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    fn from_raw(raw: &Raw) -> Result<Vec<String>, String> {
        match raw {
            Raw::List(list) => Ok(list.clone()),
            other => Err(format!("expected {}, found {}", Self::EXPECTED, other.kind())),
        }
    }

    fn shown(&self) -> String {
        // Of an option, its name: the value may be a key.
        let names = self.iter().map(|text| text.split('=').next().unwrap_or_default());
        names.collect::<Vec<_>>().join(" ")
    }
}

/// A number from 1 to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UpTo<const MAX: u32>(u32);

impl<const MAX: u32> UpTo<MAX> {
    /// `number`, brought into the range.
    pub const fn clamped(number: u32) -> Self {
        match number {
            0 => Self(1),
            number if number > MAX => Self(MAX),
            number => Self(number),
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MAX: u32> FromStr for UpTo<MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if (1..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(format!("expected a number from 1 to {MAX}")),
        }
    }
}

impl<const MAX: u32> fmt::Display for UpTo<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: u32> Value for UpTo<MAX> {
    const EXPECTED: &'static str = "a number";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Integer(text) => text.parse(),
            other => Err(format!("expected a number from 1 to {MAX}, found {}", other.kind())),
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

/// Account that restored files are given to: `user` or `user:group`, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub user: String,
    /// Group; the user's own when absent.
    pub group: Option<String>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Owner, String> {
        let name = |name: &str| match name {
            "" => Err("expected USER:GROUP, such as mysql:mysql".to_owned()),
            name if name.contains([':', '/', ' ']) => Err("expected USER:GROUP, such as mysql:mysql".to_owned()),
            name => Ok(name.to_owned()),
        };
        match text.split_once(':') {
            Some((user, group)) => Ok(Owner { user: name(user)?, group: Some(name(group)?) }),
            None => Ok(Owner { user: name(text)?, group: None }),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        if let Some(group) = &self.group {
            write!(f, ":{group}")?;
        }
        Ok(())
    }
}

impl Value for Owner {
    const EXPECTED: &'static str = "USER:GROUP";

    fn from_text(text: &str) -> Result<Owner, String> {
        text.parse()
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_outside_their_range_are_refused() {
        for text in ["0", "20", "-1", "x", "", "4294967296"] {
            assert!(text.parse::<UpTo<19>>().is_err(), "{text}");
        }
        assert_eq!("19".parse::<UpTo<19>>().unwrap().get(), 19);
        assert_eq!(UpTo::<4>::clamped(9).get(), 4);
        assert!(u16::from_text("0").is_err() && u16::from_text("65536").is_err());
    }

    #[test]
    fn an_owner_is_a_user_and_perhaps_a_group() {
        assert_eq!("mysql:mysql".parse::<Owner>().unwrap().to_string(), "mysql:mysql");
        assert_eq!("999".parse::<Owner>().unwrap().group, None);
        for text in ["", ":", "mysql:", ":mysql", "a:b:c", "a b"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_show_no_more_than_their_hosts() {
        let list = Raw::List(vec!["https://hooks.example.com/services/T0/hunter2?key=hunter2".to_owned()]);
        let addresses = Addresses::from_raw(&list).unwrap();
        assert_eq!(addresses.shown(), "https://hooks.example.com/…");
        for wrong in ["hooks.example.com", "https://user:hunter2@x/", "file:///x"] {
            assert!(!Addresses::from_text(wrong).unwrap_err().contains("hunter2"));
        }
    }

    #[test]
    fn an_endpoint_holds_no_secret() {
        assert!(endpoint("https://s3.example.com:9000/").is_ok());
        for text in ["s3.example.com", "ftp://x", "https://", "https://user:hunter2@s3.example.com"] {
            assert!(!endpoint(text).expect_err(text).contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_refused(text in "\\PC{0,30}|(https?|ftp)://[a-z0-9@:./?#%\\[\\]-]{0,30}|[0-9]{0,12}") {
            if let Ok(url) = endpoint(&text) {
                prop_assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
                prop_assert_eq!(endpoint(url.as_str()), Ok(url));
            }
            if let Ok(owner) = text.parse::<Owner>() {
                prop_assert_eq!(owner.to_string().parse(), Ok(owner));
            }
            if let Ok(number) = text.parse::<UpTo<19>>() {
                prop_assert!((1..=19).contains(&number.get()));
            }
            let _ = (u16::from_text(&text), bool::from_text(&text), Vec::<String>::from_text(&text));
        }
    }
}
