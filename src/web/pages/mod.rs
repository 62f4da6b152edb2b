//! The pages. Templates hold the words and the order of things, these files what is put into them.

mod agent;
mod backup;
mod by_table;
mod fleet;
mod login;
mod server;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};

pub(super) use agent::{running, upcoming};
pub(super) use backup::{backup, restore_command};
pub(super) use fleet::fleet;
pub(super) use login::{begin, login, login_form, logout};
pub(super) use server::server;

use super::auth::Session;
use super::{App, Missing};
use crate::model::human;

pub(super) const STYLE: &str = include_str!("../assets/style.css");
pub(super) const SCRIPT: &str = include_str!("../assets/script.js");
pub(super) const ICON: &str = include_str!("../assets/icon.svg");
/// What stands on every page.
struct Frame {
    title: String,
    place: String,
    /// `fleet`, `running` or `upcoming`.
    here: &'static str,
    agent: bool,
    can_start: bool,
    session: Option<Session>,
    version: &'static str,
    assets: String,
    /// How far reading has come, where it has not come to its end.
    reading: Option<String>,
    problem: Option<String>,
}

impl App {
    fn frame(&self, title: &str, here: &'static str, headers: &HeaderMap) -> Frame {
        let snapshot = self.fleet.snapshot();
        let (read, found) = (snapshot.read, snapshot.servers.len() as u64);
        let reading = (!snapshot.found || read < found).then(|| match found {
            0 => "looking for repositories".to_owned(),
            _ => format!("{} of {} read", human::count(read), human::count(found)),
        });
        Frame {
            title: title.to_owned(),
            place: snapshot.url.clone(),
            here,
            agent: self.service.is_some(),
            can_start: self.can_start(),
            session: self.auth.session(headers).filter(|_| self.can_start()),
            version: env!("CARGO_PKG_VERSION"),
            assets: assets(),
            reading,
            problem: snapshot.fault.as_ref().map(|fault| fault.message.clone()),
        }
    }
}

/// A name for this build's style and script, so that no old one is used.
fn assets() -> String {
    let hash = blake3::hash(format!("{STYLE}{SCRIPT}{ICON}").as_bytes()).to_hex();
    hash.as_str()[..12].to_owned()
}

fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!("a page could not be drawn: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be drawn\n").into_response()
        }
    }
}

/// A sentence instead of a page.
#[derive(Template)]
#[template(path = "message.html")]
struct Message {
    frame: Frame,
    heading: String,
    message: String,
    hint: Option<String>,
}

fn told(app: &App, headers: &HeaderMap, missing: Missing) -> Response {
    let heading = match missing.status {
        StatusCode::NOT_FOUND => "Not here",
        StatusCode::CONFLICT => "Not now",
        StatusCode::TOO_MANY_REQUESTS => "Too many tries",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "Not allowed",
        _ => "That did not work",
    };
    let frame = app.frame(heading, "", headers);
    let message = Message { frame, heading: heading.to_owned(), message: missing.message, hint: missing.hint };
    (missing.status, page(&message)).into_response()
}

pub(super) async fn not_found(State(app): State<App>, headers: HeaderMap) -> Response {
    told(&app, &headers, Missing::not_found("there is no such page"))
}

pub(super) async fn not_allowed(State(app): State<App>, headers: HeaderMap) -> Response {
    let message = "that cannot be done at this address".to_owned();
    told(&app, &headers, Missing { status: StatusCode::METHOD_NOT_ALLOWED, message, hint: None })
}

/// An answer in large letters.
struct Figure {
    label: &'static str,
    value: String,
    note: String,
}

/// A choice: a link that may be chosen.
struct Chip {
    label: String,
    severity: String,
    count: String,
    address: String,
    chosen: bool,
}
