//! Logging in, and what may be done then.

use askama::Template;
use axum::Extension;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::super::auth::{Verdict, is_same_origin, set_cookie};
use super::super::server::Peer;
use super::super::service::{Job, Refusal};
use super::super::{App, Missing};
use super::agent::STARTABLE;
use super::{Frame, page, told};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    problem: Option<&'static str>,
}

/// A token that somebody typed.
#[derive(Deserialize)]
pub(in crate::web) struct Login {
    token: String,
}

pub(in crate::web) async fn login_form(State(app): State<App>, headers: HeaderMap) -> Response {
    if !app.can_start() {
        return told(&app, &headers, Missing::not_found("no token is set up: nothing can be started here"));
    }
    page(&LoginPage { frame: app.frame("Log in", "", &headers), problem: None })
}

pub(in crate::web) async fn login(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    form: Result<Form<Login>, axum::extract::rejection::FormRejection>,
) -> Response {
    if !app.can_start() {
        return told(&app, &headers, Missing::not_found("no token is set up: nothing can be started here"));
    }
    let again = |status: StatusCode, problem| {
        (status, page(&LoginPage { frame: app.frame("Log in", "", &headers), problem: Some(problem) })).into_response()
    };
    if !is_same_origin(&headers) {
        return again(StatusCode::FORBIDDEN, "That came from another site.");
    }
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return again(rejection.status(), "That was no token."),
    };
    match app.auth.look(form.token.trim(), peer.0.ip()) {
        Verdict::Right => {
            let cookie = set_cookie(&app.auth.begin());
            ([(header::SET_COOKIE, cookie)], Redirect::to("/running")).into_response()
        }
        Verdict::Wrong => again(StatusCode::UNAUTHORIZED, "That is not the token."),
        Verdict::TooMany => again(StatusCode::TOO_MANY_REQUESTS, "Too many tokens were wrong. Wait a minute."),
    }
}

/// What every form of a session carries.
#[derive(Deserialize)]
pub(in crate::web) struct Confirmed {
    csrf: String,
    job: Option<Job>,
}

type ConfirmedForm = Result<Form<Confirmed>, axum::extract::rejection::FormRejection>;

/// The form of a session that confirms it.
fn confirmed(app: &App, headers: &HeaderMap, form: ConfirmedForm) -> Result<Confirmed, Missing> {
    let refused = |status, message: &str| Missing { status, message: message.to_owned(), hint: None };
    let session = app.auth.session(headers).filter(|_| app.can_start());
    let session = session.ok_or_else(|| refused(StatusCode::UNAUTHORIZED, "log in first"))?;
    let Form(form) = form.map_err(|rejection| refused(rejection.status(), "that form cannot be read"))?;
    if !is_same_origin(headers) || !session.confirms(&form.csrf) {
        return Err(refused(StatusCode::FORBIDDEN, "that did not come from this page; load it anew"));
    }
    Ok(form)
}

pub(in crate::web) async fn logout(State(app): State<App>, headers: HeaderMap, form: ConfirmedForm) -> Response {
    if let Err(missing) = confirmed(&app, &headers, form) {
        return told(&app, &headers, missing);
    }
    app.auth.end(&headers);
    ([(header::SET_COOKIE, set_cookie(""))], Redirect::to("/")).into_response()
}

pub(in crate::web) async fn begin(State(app): State<App>, headers: HeaderMap, form: ConfirmedForm) -> Response {
    let begun = async {
        let form = confirmed(&app, &headers, form)?;
        let unknown = || Missing::not_found("that cannot be started here");
        let job = form.job.filter(|job| STARTABLE.iter().any(|(known, _)| known == job)).ok_or_else(unknown)?;
        let started: Result<u64, Refusal> = app.agent()?.start(job).await;
        started.map_err(|refusal| Missing::of_refusal(&refusal))
    };
    match begun.await {
        Ok(run) => Redirect::to(&format!("/running#run-{run}")).into_response(),
        Err(missing) => told(&app, &headers, missing),
    }
}
