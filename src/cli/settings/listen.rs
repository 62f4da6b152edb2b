//! Where a service listens, and what a GiB costs.

use std::{fmt, net::SocketAddr, str::FromStr};

use super::{file::Raw, value::Value};

/// An address and a port, such as `127.0.0.1:8321` or `[::1]:8321`; port 0 is any that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = local.as_deref().unwrap_or(text).parse();
        address.map(Listen).map_err(|_| format!("expected {}, found {text:?}", Listen::EXPECTED))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for Listen {
    const EXPECTED: &'static str = "an address and a port such as \"127.0.0.1:8321\"";

    fn from_text(text: &str) -> Result<Listen, String> {
        text.parse()
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

/// What a GiB costs for a month, in whatever money.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price(pub f64);

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Price, String> {
        let price = text.parse::<f64>().ok().filter(|price| price.is_finite() && (0.0..1e6).contains(price));
        price.map(Price).ok_or_else(|| format!("expected {}, found {text:?}", Price::EXPECTED))
    }
}

impl Value for Price {
    const EXPECTED: &'static str = "a price such as \"0.023\"";

    fn from_text(text: &str) -> Result<Price, String> {
        text.parse()
    }

    fn from_raw(raw: &Raw) -> Result<Price, String> {
        match raw {
            Raw::Text(text) | Raw::Integer(text) => text.parse(),
            other => Err(format!("expected {}, found {}", Price::EXPECTED, other.kind())),
        }
    }

    fn shown(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_ports() {
        for (text, told) in [
            ("127.0.0.1:8321", "127.0.0.1:8321"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0:9", "0.0.0.0:9"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), told);
        }
        for text in ["", "8321", "127.0.0.1", "example.com:80", "localhost:x", "127.0.0.1:99999"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn prices_are_numbers_that_can_be_paid() {
        assert_eq!("0.023".parse(), Ok(Price(0.023)));
        for text in ["", "-1", "NaN", "inf", "1e9", "$1"] {
            assert!(text.parse::<Price>().is_err(), "{text}");
        }
    }
}
